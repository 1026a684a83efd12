"""The steps of a recipe, one settings class for each kind."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from ptm_plus.settings import Section


class Step(BaseModel):
    """One step: what it does to the documents that the step before left.

    As strict as the sections of the settings; they check each field beforehand, which ``kind``,
    the field that tells the steps apart, does not allow.

    Attributes of every step:
        why: the reason, for whoever reads the recipe; the account repeats it.
    """

    why: str = Field("", description="The reason for this step and its thresholds.")

    model_config = Section.model_config

    @model_validator(mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if field is not None and isinstance(value, bool) and field.annotation in (int, float):
                raise ValueError(f"{name} has to be a number")
        return values


class Normalise(Step):
    """Unicode form, mended encodings, white space, control characters."""

    kind: Literal["normalise"]
    unicode: Literal["NFC", "NFKC", "none"] = Field("NFC", description="Unicode normal form.")
    mend: bool = Field(True, description="Mend text that was decoded wrongly (ftfy).")
    space: bool = Field(True, description="Runs of blanks to one; at most one empty line.")


class Language(Step):
    """Keep documents in some languages (py3langid, whose model lies in its package)."""

    kind: Literal["language"]
    keep: tuple[str, ...] = Field((), description="Languages to keep; default: the recipe's.")
    probability: float = Field(0.5, ge=0, le=1, description="Least probability.")


class Length(Step):
    """Keep documents of some length, in words."""

    kind: Literal["length"]
    min_words: int = Field(0, ge=0, description="Fewest words.")
    max_words: int = Field(0, ge=0, description="Most words; 0 for any number.")


class GopherQuality(Step):
    """The document rules of Gopher (Rae et al. 2021, table A1); 0 turns a rule off."""

    kind: Literal["gopher-quality"]
    min_doc_words: int = Field(50, ge=0, description="Fewest words.")
    max_doc_words: int = Field(100_000, ge=0, description="Most words.")
    min_avg_word_length: float = Field(3, ge=0, description="Least mean length of a word.")
    max_avg_word_length: float = Field(10, ge=0, description="Greatest mean length of a word.")
    max_symbol_word_ratio: float = Field(0.1, ge=0, description="Most # or … per word.")
    max_bullet_lines_ratio: float = Field(0.9, ge=0, description="Most lines with a bullet.")
    max_ellipsis_lines_ratio: float = Field(0.3, ge=0, description="Most lines that end in ….")
    max_non_alpha_words_ratio: float = Field(
        0.8, ge=0, description="Least share of words with a letter (named as in datatrove)."
    )
    min_stop_words: int = Field(2, ge=0, description="Fewest different stop words.")
    stop_words: tuple[str, ...] = Field((), description="Default: Gopher's eight English ones.")


class GopherRepetition(Step):
    """The repetition rules of Gopher (Rae et al. 2021, table A1); 0 turns a rule off."""

    kind: Literal["gopher-repetition"]
    dup_line_frac: float = Field(0.3, ge=0, description="Most lines that repeat another.")
    dup_para_frac: float = Field(0.3, ge=0, description="Most paragraphs that repeat another.")
    dup_line_char_frac: float = Field(0.2, ge=0, description="The same, in characters.")
    dup_para_char_frac: float = Field(0.2, ge=0, description="The same, in characters.")
    top_n_grams: tuple[tuple[int, float], ...] = Field(
        ((2, 0.2), (3, 0.18), (4, 0.16)), description="Most of the text in one n-gram."
    )
    dup_n_grams: tuple[tuple[int, float], ...] = Field(
        ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)),
        description="Most of the text in n-grams that occur twice.",
    )


class FinewebQuality(Step):
    """The rules that FineWeb added (Penedo et al. 2024, section 3.6)."""

    kind: Literal["fineweb-quality"]
    line_punct_thr: float = Field(0.12, ge=0, le=1, description="Least lines that end a sentence.")
    short_line_thr: float = Field(0.67, ge=0, le=1, description="Most short lines.")
    short_line_length: int = Field(30, ge=0, description="What a short line is, in characters.")
    char_duplicates_ratio: float = Field(0.01, ge=0, le=1, description="Most repeated text.")
    new_line_ratio: float = Field(0.3, ge=0, description="Most line breaks per word.")


class C4Lines(Step):
    """The line and page rules of C4 (Raffel et al. 2020, section 2.2)."""

    kind: Literal["c4-lines"]
    filter_no_terminal_punct: bool = Field(True, description="Drop lines that end no sentence.")
    min_num_sentences: int = Field(5, ge=-1, description="Fewest sentences; -1 for any number.")
    min_words_per_line: int = Field(3, ge=-1, description="Drop shorter lines; -1 for none.")
    filter_lorem_ipsum: bool = Field(True, description="Drop documents with lorem ipsum.")
    filter_javascript: bool = Field(True, description="Drop lines that name JavaScript.")
    filter_curly_bracket: bool = Field(True, description="Drop documents with a curly bracket.")
    filter_policy: bool = Field(True, description="Drop lines about cookies and terms of use.")


class Mask(Step):
    """Put placeholders in the place of what may identify a person."""

    kind: Literal["mask"]
    emails: bool = Field(True, description="E-mail addresses → <email>.")
    addresses: bool = Field(True, description="Public IP addresses → <ip>.")
    phones: bool = Field(True, description="Telephone numbers in international form → <phone>.")
    accounts: bool = Field(True, description="IBAN and card numbers that check out → <account>.")
    patterns: dict[str, str] = Field(
        default_factory=dict, description="Further regular expressions, by placeholder."
    )

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}: no regular expression: {error}") from error
        return patterns


class ExactDuplicates(Step):
    """Keep one of all documents with the same words (case, marks and spaces aside)."""

    kind: Literal["exact-duplicates"]


class NearDuplicates(Step):
    """Keep one of each cluster of near duplicates, by MinHash over word n-grams."""

    kind: Literal["near-duplicates"]
    ngrams: int = Field(5, ge=1, le=20, description="Words of a shingle.")
    buckets: int = Field(14, ge=1, le=64, description="Bands; one equal band makes a pair.")
    hashes: int = Field(8, ge=1, le=32, description="Hashes of a band.")
    seed: int = Field(1, ge=0, description="Of the hash functions.")


class RepeatedLines(Step):
    """Keep the first of all equal spans of lines in the corpus: notices, headers, footers."""

    kind: Literal["repeated-lines"]
    lines: int = Field(1, ge=1, le=10, description="Lines of a span.")
    min_words: int = Field(6, ge=0, description="Shorter spans stay: headings repeat rightly.")
    min_doc_words: int = Field(0, ge=0, description="Drop a document of which less is left.")


class Decontaminate(Step):
    """Drop documents that share word n-grams with evaluation files.

    A row of an evaluation file that is shorter than ``ngrams`` counts by its n-grams of ``short``
    words, and one that is shorter than that cannot be looked for; the account says how many.
    """

    kind: Literal["decontaminate"]
    against: tuple[str, ...] = Field((), description="Evaluation files; globs are allowed.")
    columns: tuple[str, ...] = Field((), description="Their columns; default: all that hold text.")
    ngrams: int = Field(13, ge=2, le=50, description="Words of an n-gram (GPT-3: 13).")
    short: int = Field(8, ge=2, le=50, description="Words of an n-gram of a short row.")


class Units(Step):
    """Cut documents into paragraphs or sentences."""

    kind: Literal["units"]
    unit: Literal["document", "paragraph", "sentence"] = Field("document", description="Of what.")


AnyStep = Annotated[
    Normalise
    | Language
    | Length
    | GopherQuality
    | GopherRepetition
    | FinewebQuality
    | C4Lines
    | Mask
    | ExactDuplicates
    | NearDuplicates
    | RepeatedLines
    | Decontaminate
    | Units,
    Field(discriminator="kind"),
]

BARRIERS = (ExactDuplicates, NearDuplicates, RepeatedLines)
"""Steps that compare all documents: they begin when the steps before are done everywhere."""
