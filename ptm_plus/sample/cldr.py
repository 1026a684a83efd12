"""Facts and names as CLDR has them, read from Babel.

Entities carry labels of their own: ``T:FR`` (territory), ``C:EUR`` (currency), ``L:fr`` (language),
``Z:Europe_Central`` (time zone in the sense of CLDR's metazones).  Babel ships no territory
containment, so there is no "part of"; time zones, which it does ship and names in every language,
give the graph its geography.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping

from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_currency_name, get_territory_currencies

LANGUAGES = ("en", "fr", "de", "es", "ru", "zh", "ar")
"""Languages of the world's text, by BCP-47 code: four scripts."""

RELATIONS = ("currency", "official_language", "spoken_language", "time_zone")
"""Relations of the graph; every one has a territory as its subject."""

READ_ON = datetime.date(2025, 1, 1)
"""Currencies are those in use on this day, so that the facts do not change with the calendar."""

SPOKEN_SHARE = 10.0
"""Least percentage of a territory's people for a language without official status to count."""

Triple = tuple[str, str, str]
Names = dict[str, dict[str, str]]


def _territories() -> list[str]:
    known = get_global("territory_languages")
    return sorted(code for code in known if len(code) == 2 and code.isalpha() and code != "ZZ")


def _base(language: str) -> str:
    """Return the language of a CLDR code without its script: ``uz_Cyrl`` is ``uz``."""
    return language.split("_")[0]


def _currencies(territory: str) -> list[str]:
    return sorted(set(get_territory_currencies(territory, start_date=READ_ON)))


def _official(territory: str, *, regional: bool) -> set[str]:
    found = get_official_languages(territory, regional=regional, de_facto=True)
    return {_base(language) for language in found}


def _spoken(territory: str) -> list[str]:
    """Return the language with most speakers among those without any official status, if one."""
    shares: dict[str, float] = {}
    for code, facts in get_global("territory_languages")[territory].items():
        shares[_base(code)] = shares.get(_base(code), 0.0) + facts["population_percent"]
    official = _official(territory, regional=True)
    left = [(share, code) for code, share in shares.items() if code not in official]
    left = [(share, code) for share, code in left if share >= SPOKEN_SHARE]
    return [max(left)[1]] if left else []


def _time_zone(territory: str) -> list[str]:
    """Return the metazone of a territory that has exactly one."""
    metazones = get_global("meta_zones")
    found = {metazones.get(zone) for zone in get_global("territory_zones").get(territory, ())}
    return [str(zone) for zone in found if zone] if len(found) == 1 else []


def read_triples() -> list[Triple]:
    """Return every fact of the world, sorted; a subject has an object once, under one relation."""
    found: set[Triple] = set()
    for code in _territories():
        subject = f"T:{code}"
        found.update((subject, "currency", f"C:{c}") for c in _currencies(code))
        official = _official(code, regional=False)
        found.update((subject, "official_language", f"L:{c}") for c in official)
        found.update((subject, "spoken_language", f"L:{c}") for c in _spoken(code))
        found.update((subject, "time_zone", f"Z:{c}") for c in _time_zone(code))
    return sorted(found)


def _metazone_names(locale: Locale) -> Iterator[tuple[str, str]]:
    """Yield the name of each metazone; the longer form where the short one is a territory's.

    In Russian the time of Saudi Arabia is called "Saudi Arabia", and Kuwait has it: a reader, or a
    linker, would take it for the country.
    """
    places = {name.casefold() for name in locale.territories.values()}
    for zone, forms in locale.meta_zones.items():
        long: Mapping[str, str] = forms.get("long") or {}
        name, standard = long.get("generic"), long.get("standard")
        if name and name.casefold() not in places:
            yield zone, name
        elif standard and standard.casefold() not in places:
            yield zone, standard


def read_names(language: str) -> dict[str, str]:
    """Return the CLDR name in one language of every entity that has one; codes are not names."""
    locale = Locale.parse(language)
    tables = {
        "T": locale.territories.items(),
        "C": locale.currencies.items(),
        "L": locale.languages.items(),
        "Z": _metazone_names(locale),
    }
    return {
        f"{kind}:{code}": str(name)
        for kind, table in tables.items()
        for code, name in table
        if name and str(name).casefold() != code.casefold()
    }


def read_aliases(language: str, entities: Iterable[str]) -> dict[str, list[str]]:
    """Return other written forms by entity: a currency's counted forms and its code.

    Territories and languages get none: their two-letter codes are words (``IT``, ``in``, ``no``).
    """
    aliases = {}
    for entity in entities:
        kind, code = entity.split(":", 1)
        if kind == "C":
            name = get_currency_name(code, locale=language)
            forms = {get_currency_name(code, count=n, locale=language) for n in (1, 2, 5)}
            aliases[entity] = sorted({*forms, code} - {name})
    return aliases


def read_world() -> tuple[list[Triple], Names]:
    """Return the facts whose subject and object share a language, and the names by language.

    An entity without a name in any language of the world could neither be written nor asked for;
    its facts are left out.
    """
    names: Names = {language: read_names(language) for language in LANGUAGES}
    triples = [
        (subject, relation, object_)
        for subject, relation, object_ in read_triples()
        if any(subject in known and object_ in known for known in names.values())
    ]
    used = {entity for subject, _, object_ in triples for entity in (subject, object_)}
    kept = {
        language: {entity: name for entity, name in sorted(known.items()) if entity in used}
        for language, known in names.items()
    }
    return triples, kept
