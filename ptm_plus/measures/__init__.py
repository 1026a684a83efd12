"""What ``ptm-plus evaluate`` measures of a model, as plain transformers loads it.

``translations``, ``neighbours`` and ``geometry`` are pairs and formulas on vectors, which a run's
own retrieval uses too; ``plain_model`` runs a model; each of ``sentences``, ``words`` and
``perplexity`` is one probe.
"""
