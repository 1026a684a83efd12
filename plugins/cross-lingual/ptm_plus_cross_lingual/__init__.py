"""Objectives on sentence pairs beside translation language modelling."""

from ptm_plus import Claim, PluginInfo

plugin = PluginInfo(
    name="cross-lingual",
    summary="Contrast, word recovery, paraphrases and switched sentences (InfoXLM, Unicoder)",
    hooks="ptm_plus_cross_lingual.hooks:CrossLingual",
    settings="ptm_plus_cross_lingual.settings:CrossLingualSettings",
    needs=("pairs",),
    claims=(Claim(resource="backbone"),),
)
