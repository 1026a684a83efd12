"""Adapters beside a frozen backbone: relations between entities, dependencies between words."""

from ptm_plus import Claim, PluginInfo

plugin = PluginInfo(
    name="k-adapter",
    summary="Train adapters beside a frozen encoder on relations and dependencies (K-Adapter)",
    hooks="ptm_plus_k_adapter.hooks:KAdapter",
    settings="ptm_plus_k_adapter.settings:KAdapterSettings",
    claims=(Claim(resource="backbone", mode="keep"),),
    paths=("relations", "dependencies"),
    extra="k-adapter",
)
