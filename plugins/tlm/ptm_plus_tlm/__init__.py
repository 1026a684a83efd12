"""Translation language modelling: masked words of a sentence pair, recovered with both halves."""

from ptm_plus import Claim, PluginInfo

plugin = PluginInfo(
    name="tlm",
    summary="Translation language modelling on sentence pairs (XLM)",
    hooks="ptm_plus_tlm.hooks:Tlm",
    settings="ptm_plus_tlm.settings:TlmSettings",
    needs=("pairs",),
    claims=(Claim(resource="backbone"),),
)
