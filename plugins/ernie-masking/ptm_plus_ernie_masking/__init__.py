"""Whole phrases and entities, n-grams and spans as what is masked (ERNIE, ALBERT, SpanBERT)."""

from ptm_plus import Claim, PluginInfo

plugin = PluginInfo(
    name="ernie-masking",
    summary="Mask whole phrases and entities, n-grams or spans (ERNIE, ALBERT, SpanBERT)",
    hooks="ptm_plus_ernie_masking.hooks:ErnieMasking",
    settings="ptm_plus_ernie_masking.settings:ErnieMaskingSettings",
    uses=("spans:entity",),
    claims=(Claim(resource="backbone"),),
    extra="ernie-masking",
)
