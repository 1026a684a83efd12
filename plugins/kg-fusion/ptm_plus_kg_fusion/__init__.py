"""Entity vectors of a knowledge graph, fused into the encoder."""

from ptm_plus import Claim, PluginInfo

plugin = PluginInfo(
    name="kg-fusion",
    summary="Fuse the vectors of a knowledge graph's entities into the encoder (ERNIE-THU)",
    hooks="ptm_plus_kg_fusion.hooks:KgFusion",
    settings="ptm_plus_kg_fusion.settings:KgFusionSettings",
    needs=("spans:entity",),
    claims=(Claim(resource="backbone"),),
    extra="kg-fusion",
)
