"""What ``ptm-plus evaluate`` measures of a model, as plain transformers loads it.

``neighbours`` and ``geometry`` are formulas on vectors; ``plain_model`` runs a model; each of
``sentences``, ``words`` and ``perplexity`` is one probe.
"""
