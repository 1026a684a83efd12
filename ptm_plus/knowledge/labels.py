"""What entities are called, by language: labels and aliases, each with the entities it may mean."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ptm_plus.errors import DataError, listed, shown
from ptm_plus.files import Pathish, open_lines, plain_suffix
from ptm_plus.json_rows import json_row
from ptm_plus.knowledge.links import read_links, representative

NAME_COLUMNS = ("label", "title", "wikipedia_title", "name")
"""Columns that may hold the label in a TSV file; the first one present is used."""

Namings = Mapping[str, Sequence[tuple[str, bool]]]
"""By surface: the entities it may mean, as (entity id, whether it is only an alias)."""

_DISAMBIGUATOR = re.compile(r"\s+\([^()]*\)$")


@dataclass(frozen=True, slots=True)
class Names:
    """What one source row says: an entity's label and aliases in one language."""

    id: str
    language: str
    label: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EntityLabels:
    """Surfaces by language, each with the entities that bear it.

    Attributes:
        by_language: for each BCP-47 code and surface, (entity id, is_alias) in the order read; an
            id occurs once per surface, as a label if it is one.
    """

    by_language: Mapping[str, Namings]

    @classmethod
    def build(cls, names: Iterable[Names], links: Mapping[str, str] | None = None) -> EntityLabels:
        """Collect names; surfaces are stripped and brought to Unicode form NFC.

        Args:
            names: rows in any order; only the policy ``first`` of the linker depends on it.
            links: representative of linked ids, as ``read_links`` returns it.
        """
        found: dict[str, dict[str, dict[str, bool]]] = {}
        for row in names:
            entity = representative(links or {}, row.id)
            surfaces = found.setdefault(standard_language(row.language), {})
            for surface, is_alias in _surfaces(row):
                bearers = surfaces.setdefault(surface, {})
                bearers[entity] = bearers.get(entity, True) and is_alias
        return cls(
            {
                language: {text: list(bearers.items()) for text, bearers in surfaces.items()}
                for language, surfaces in found.items()
            }
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over languages, surfaces and their entities."""
        digest = hashlib.sha256()
        for language in sorted(self.by_language):
            for surface, bearers in sorted(self.by_language[language].items()):
                digest.update(json.dumps([language, surface, list(bearers)]).encode())
        return digest.hexdigest()

    @cached_property
    def labelled(self) -> Mapping[str, frozenset[str]]:
        """Entity ids that have at least one surface, by language."""
        return {
            language: frozenset(entity for bearers in surfaces.values() for entity, _ in bearers)
            for language, surfaces in self.by_language.items()
        }

    def label(self, entity: str, language: str) -> str | None:
        """Return the first label of an entity in a language, ``None`` where it has none."""
        return self._label_of.get(standard_language(language), {}).get(entity)

    def restricted(self, entities: Collection[str]) -> EntityLabels:
        """Return the names of some entities only; languages that lose all are gone."""
        kept: dict[str, dict[str, Sequence[tuple[str, bool]]]] = {}
        for language, surfaces in self.by_language.items():
            for surface, bearers in surfaces.items():
                known = [bearer for bearer in bearers if bearer[0] in entities]
                if known:
                    kept.setdefault(language, {})[surface] = known
        return EntityLabels(kept)

    @cached_property
    def _label_of(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for language, surfaces in self.by_language.items():
            names = found.setdefault(language, {})
            for surface, bearers in surfaces.items():
                for entity, is_alias in bearers:
                    if not is_alias:
                        names.setdefault(entity, surface)
        return found


def read_labels(paths: Sequence[Pathish], links: Sequence[Pathish] = ()) -> EntityLabels:
    """Read label files, line by line; see ``iter_names`` for their formats.

    Raises:
        DataError: a file is missing, empty, of another format, or has a broken row.
    """
    return EntityLabels.build(
        (row for path in paths for row in iter_names(path)), read_links(links)
    )


def iter_names(path: Pathish) -> Iterator[Names]:
    """Yield the rows of one label file.

    ``.jsonl``: objects with ``id``, ``lang``, ``label`` and optionally ``aliases`` (a list).
    ``.tsv``: a header with ``id``, ``lang``, one of ``label``, ``title``, ``wikipedia_title``,
    ``name``, and optionally ``aliases`` (separated by ``|``). In a ``wikipedia_title`` underscores
    are spaces, and ``Paris (Texas)`` also gives the alias ``Paris``.

    Raises:
        DataError: the file is missing, empty, of another format, or has a broken row.
    """
    suffix = plain_suffix(path)
    if suffix not in (".jsonl", ".tsv"):
        raise DataError(f"labels are .jsonl or .tsv, not {shown(suffix)}", path=path)
    empty = True
    for row in _json_names(path) if suffix == ".jsonl" else _tsv_names(path):
        empty = False
        yield row
    if empty:
        raise DataError("holds no labels", "give one row per entity and language", path=path)


@lru_cache(maxsize=4096)
def standard_language(tag: str) -> str:
    """Return the BCP-47 form of a language tag: ``eng`` → ``en``; ``und`` for an empty one.

    Raises:
        DataError: it is not a language tag.
    """
    import langcodes

    try:
        return langcodes.standardize_tag(tag) if tag else "und"
    except ValueError as error:
        raise DataError(
            f"{shown(tag)} is not a language code", "codes are like en, fr, zh-Hant"
        ) from (error)


def _surfaces(row: Names) -> Iterator[tuple[str, bool]]:
    for surface, is_alias in ((row.label, False), *((alias, True) for alias in row.aliases)):
        text = unicodedata.normalize("NFC", surface).strip()
        if text:
            yield text, is_alias


def _language(tag: str, path: Pathish, number: int) -> str:
    try:
        return standard_language(tag)
    except DataError as error:
        raise DataError(error.message, error.hint, path=path, line=number) from error


def _json_names(path: Pathish) -> Iterator[Names]:
    for number, line in open_lines(path):
        if not line.strip():
            continue
        yield _json_names_of(json_row(line, path, number), path, number)


def _json_names_of(row: Mapping[str, Any], path: Pathish, number: int) -> Names:
    entity = str(row["id"]) if type(row.get("id")) is int else row.get("id")
    aliases = [] if row.get("aliases") in (None, "") else row["aliases"]
    for key, value in (("id", entity), ("lang", row.get("lang")), ("label", row.get("label"))):
        if not isinstance(value, str):
            raise DataError(f"{key!r} must be text, found {shown(value)}", path=path, line=number)
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise DataError(
            f"'aliases' must be a list of texts, found {shown(aliases)}", path=path, line=number
        )
    if not entity:
        raise DataError("'id' is empty", path=path, line=number)
    return Names(entity, _language(row["lang"], path, number), row["label"], tuple(aliases))


def _tsv_names(path: Pathish) -> Iterator[Names]:
    lines = open_lines(path)
    header = next(lines, (1, ""))[1].split("\t")
    name = next((column for column in NAME_COLUMNS if column in header), None)
    if name is None or "id" not in header or "lang" not in header:
        raise DataError(
            f"the header has {listed(header)}",
            f"it needs id, lang and one of {', '.join(NAME_COLUMNS)}, separated by tabs",
            path=path,
            line=1,
        )
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"columns named twice: {listed(twice)}", "rename one", path=path, line=1)
    for number, line in lines:
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise DataError(
                f"found {len(cells)} columns, expected {len(header)}", path=path, line=number
            )
        yield _tsv_row(dict(zip(header, cells, strict=True)), name, path, number)


def _tsv_row(row: Mapping[str, str], name: str, path: Pathish, number: int) -> Names:
    entity, label = row["id"].strip(), row[name]
    if not entity:
        raise DataError("the id is empty", path=path, line=number)
    aliases = row["aliases"].split("|") if row.get("aliases") else []
    if name == "wikipedia_title":
        label = label.replace("_", " ").strip()
        plain = _DISAMBIGUATOR.sub("", label)
        aliases += [plain] if plain != label else []
    return Names(entity, _language(row["lang"].strip(), path, number), label, tuple(aliases))
