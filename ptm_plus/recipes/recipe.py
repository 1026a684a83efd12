"""The recipe: a TOML file from the sources of a domain to a corpus, and to a run that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from ptm_plus.discovery import NAME
from ptm_plus.errors import DataError, SettingsError, nearest, shown
from ptm_plus.knowledge.labels import standard_language
from ptm_plus.recipes.steps import AnyStep, Decontaminate
from ptm_plus.settings import Section
from ptm_plus.settings_checks import check_values, validated
from ptm_plus.settings_files import read_toml
from ptm_plus.settings_paths import with_path

Format = Literal["text", "lines", "jsonl", "csv", "tsv", "parquet", "pubmed", "jats", "wiki"]

RECIPE, ACCOUNT, ROWS = "recipe.toml", "account.json", "data"
"""In the folder of a corpus: its recipe, what was counted, and the folder of its rows."""

_SHA256 = r"[0-9a-f]{64}"


class Remote(Section):
    """A file to download, with the checksum that it must have."""

    url: str = Field(pattern=r"https?://\S+", description="Address.")
    sha256: str = Field(pattern=_SHA256, description="SHA-256 in hexadecimal.")


class Source(Section):
    """Where some of the text comes from, and under which terms."""

    name: str = Field(description="Its name, in the account and in the rows.")
    files: tuple[str, ...] = Field((), description="Files or patterns, below the data folder.")
    remote: tuple[Remote, ...] = Field((), description="Files to download.")
    hub: str = Field("", description="Data set, `ORG/NAME[:CONFIG[:SPLIT]]`.")
    sha256: dict[str, str] = Field(
        default_factory=dict, description="Checksums that files must have, by file name."
    )
    format: Format = Field("jsonl", description="How the files are read.")
    text: tuple[str, ...] = Field(
        ("text",), min_length=1, description="Columns of the text; several make paragraphs."
    )
    id: str = Field("id", description="Column of the identifier; default: file and row.")
    metadata: tuple[str, ...] = Field((), description="Further columns to keep.")
    language: str = Field("", description="Language of rows that name none.")
    qids: str = Field("", description="For wiki: TSV of page title and Wikidata id.")
    licence: str = Field(min_length=1, description="Terms of use, as the source states them.")
    provenance: str = Field(min_length=1, description="Who made it and where it is.")
    access: str = Field("", description="How to get it; what has to be asked for, and where.")
    size: str = Field("", description="What to expect: documents, words, bytes.")
    sample: str = Field(
        "", description="A small file that stands for it, in `samples` beside the recipe."
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return _name(name)

    @field_validator("language")
    @classmethod
    def _check_language(cls, tag: str) -> str:
        return _tag(tag) if tag else ""

    @model_validator(mode="after")
    def _check_place(self) -> Source:
        if sum(map(bool, (self.files, self.remote, self.hub))) != 1:
            raise ValueError(f"source {self.name!r} needs one of files, remote and hub")
        if self.qids and self.format != "wiki":
            raise ValueError(f"source {self.name!r}: qids belong to the format wiki")
        return self


class Mix(Section):
    """What else a run on this corpus reads."""

    general: tuple[str, ...] = Field((), description="General text to replay, as after --text.")
    replay: float = Field(0.0, ge=0, lt=1, description="Share of the rows that are general text.")
    alpha: float = Field(1.0, gt=0, le=1, description="Languages are drawn as size^alpha.")
    guard: Literal["off", "stop", "slow"] = Field(
        "stop", description="When general text is forgotten: stop the run, or lower its rate."
    )
    margin: float = Field(
        0.1, ge=0, description="How far the loss on general text may rise, in nats."
    )
    why: str = Field("", description="Reason and source.")


class Vocabulary(Section):
    """What is done about the vocabulary."""

    decision: Literal["keep", "extend", "train"] = Field("keep", description="What.")
    entries: int = Field(0, ge=0, description="New entries, or size of the new vocabulary.")
    why: str = Field("", description="Reason and source.")


class Defaults(Section):
    """Training defaults."""

    steps: int = Field(10_000, ge=1, description="Optimizer steps.")
    lr: float = Field(5e-5, gt=0, description="Peak learning rate.")
    warmup: float = Field(0.06, ge=0, le=1, description="Share of the steps for warm-up.")
    max_length: int = Field(512, ge=8, description="Longest sequence, in tokens.")
    why: str = Field("", description="Reason and source.")


class Paper(Section):
    """The model that the recipe is after, and how that was made."""

    citation: str = Field(min_length=1, description="Paper.")
    url: str = Field("", description="Where it is.")
    settings: dict[str, str] = Field(
        default_factory=dict, description="Its settings, in its own words."
    )


class Recipe(Section):
    """A domain corpus, from raw files to the defaults of a run."""

    name: str = Field(description="Its name.")
    title: str = Field(min_length=1, description="One line for lists.")
    description: str = Field("", description="What it is for.")
    languages: tuple[str, ...] = Field(min_length=1, description="Languages of the corpus.")
    sources: tuple[Source, ...] = Field(min_length=1, description="Where the text comes from.")
    steps: tuple[AnyStep, ...] = Field((), description="What is done, in this order.")
    mix: Mix = Field(default_factory=Mix, description="What else a run reads.")
    vocabulary: Vocabulary = Field(default_factory=Vocabulary, description="The vocabulary.")
    training: Defaults = Field(default_factory=Defaults, description="Training defaults.")
    papers: tuple[Paper, ...] = Field((), description="Models of this kind, and their settings.")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return _name(name)

    @field_validator("languages")
    @classmethod
    def _check_languages(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_tag, tags))

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}")
        return self

    def with_evaluation(self, files: tuple[str, ...]) -> Recipe:
        """Return the recipe with more evaluation files in its steps of decontamination.

        Raises:
            SettingsError: there are files and no such step.
        """
        if not files:
            return self
        steps = [
            step.model_copy(update={"against": (*step.against, *files)})
            if isinstance(step, Decontaminate)
            else step
            for step in self.steps
        ]
        if tuple(steps) == self.steps:
            raise SettingsError(
                f"--against {files[0]}: the recipe {self.name!r} has no step 'decontaminate'",
                "add one to a copy of the recipe",
            )
        return self.model_copy(update={"steps": tuple(steps)})

    def with_general(self, files: tuple[str, ...], data: Path) -> Recipe:
        """Return the recipe with more general text, all of it by paths in full.

        Args:
            files: as after ``--text``, by paths in full.
            data: folder that names in the recipe start from.
        """

        def absolute(path: str) -> str:
            return str((data / Path(path).expanduser()).absolute())

        general = (*(with_path(one, absolute) for one in self.mix.general), *files)
        return self.model_copy(update={"mix": self.mix.model_copy(update={"general": general})})


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        SettingsError: the file cannot be read, is not TOML, or says something that a recipe cannot;
            with the file, and the line or the key.
    """
    values = read_toml(path)
    try:
        check_values(values, str(path))
        _check_keys_of_lists(values)
        return validated(Recipe, values)
    except SettingsError as error:
        lines = "\n".join(f"{path}: {line}" for line in error.message.splitlines())
        raise SettingsError(lines, error.hint) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, for editors."""
    return Recipe.model_json_schema()


_OF_LISTS: dict[str, type[BaseModel]] = {"sources": Source, "papers": Paper}


def _check_keys_of_lists(values: dict[str, Any]) -> None:
    """Refuse unknown keys in sources, steps and papers, with the nearest one that there is."""
    kinds: tuple[type[BaseModel], ...] = get_args(get_args(AnyStep)[0])
    steps = {get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in kinds}
    for section in ("sources", "steps", "papers"):
        entries = values.get(section, [])
        for at, entry in enumerate(entries if isinstance(entries, list) else []):
            if not isinstance(entry, dict):
                continue
            place = f"{section}[{at}]"
            model = _OF_LISTS.get(section)
            if model is None:
                kind = entry.get("kind")
                model = steps.get(kind) if isinstance(kind, str) else None
            if model is None:
                found = f"found {shown(entry['kind'])}" if "kind" in entry else "missing"
                raise SettingsError(
                    f"{place}.kind: {found}{nearest(str(entry.get('kind', '')), steps)}",
                    f"kinds of steps: {', '.join(steps)}",
                )
            for key in entry:
                if key not in model.model_fields:
                    known = list(model.model_fields)
                    raise SettingsError(
                        f"{place}.{key}: unknown key{nearest(key, known)}",
                        f"keys there: {', '.join(known)}",
                    )


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("letters, digits, '.', '_' and '-' only")
    return name


def _tag(tag: str) -> str:
    try:
        return standard_language(tag)
    except DataError as error:
        raise ValueError(error.message) from error
