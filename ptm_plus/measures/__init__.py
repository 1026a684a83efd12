"""What ``ptm-plus evaluate`` measures of a model, as plain transformers loads it.

``translations``, ``neighbours`` and ``geometry`` are pairs and formulas on vectors, which a run's
own retrieval uses too; ``plain_model`` runs a model; each of ``sentences``, ``words``,
``perplexity`` (with ``whole_words``) and ``tasks`` (with ``task_files`` and ``fine_tuning``) is one
probe.
"""
