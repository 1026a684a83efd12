"""Entity vectors of a knowledge graph, fused into the encoder."""

from ptm_plus import PluginInfo

plugin = PluginInfo(
    name="kg-fusion",
    summary="Fuse the vectors of a knowledge graph's entities into the encoder (ERNIE-THU)",
    hooks="ptm_plus_kg_fusion.hooks:KgFusion",
    settings="ptm_plus_kg_fusion.settings:KgFusionSettings",
    needs=("spans:entity",),
    extra="kg-fusion",
)
