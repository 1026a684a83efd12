"""Continuing on a domain's text without forgetting the rest."""

from ptm_plus import Claim, PluginInfo

plugin = PluginInfo(
    name="domain",
    summary="Continue on a domain: replay of general text, a guard against forgetting, task text",
    hooks="ptm_plus_domain.hooks:Domain",
    settings="ptm_plus_domain.settings:DomainSettings",
    needs=("text",),
    claims=(Claim(resource="backbone"),),
    paths=("general", "task"),
)
