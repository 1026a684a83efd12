"""From rows to examples: texts with spans, and pairs of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, listed, nearest, shown
from ptm_plus.examples import Example, Span
from ptm_plus.languages import valid_language
from ptm_plus.sources.formats import pair_rows, text_rows
from ptm_plus.sources.spec import SourceSpec
from ptm_plus.sources.tmx import Unit

BLANK_LINE = "blank line"
EMPTY_TEXT = "empty text"
EMPTY_HALF = "empty half"
EQUAL_HALVES = "identical halves"
NO_TRANSLATION = "not in both languages"

_ENTITY = "entity"


class _Place(NamedTuple):
    """Where a row stands, for ids and messages."""

    path: str
    line: int

    def error(self, message: str, hint: str) -> DataError:
        return DataError(message, hint, path=self.path, line=self.line)


def read_text(spec: SourceSpec) -> Iterator[Example | Refused]:
    """Yield one example with the field ``text``, or one refusal, per row.

    Spans come from ``mentions`` (always of kind ``entity``, whatever else they say) and from
    ``spans`` (of their own ``kind``). An entity without an id marks nothing and is left out.

    Raises:
        DataError: a file is empty or of an unknown format, or a row is broken.
        SettingsError: the flag gives something that is not a language.
    """
    language = spec.text_language()
    for path, line, row in text_rows(spec):
        place = _Place(path, line)
        yield Refused(BLANK_LINE, path, line) if row is None else _text(row, language, place)


def read_pairs(spec: SourceSpec) -> Iterator[Example | Refused]:
    """Yield one example with the fields ``src`` and ``tgt``, or one refusal, per row.

    Spans come from ``src_mentions``, ``tgt_mentions``, ``src_spans`` and ``tgt_spans``.

    Raises:
        DataError: a file is empty or of an unknown format, or a row is broken.
        SettingsError: the flag gives something that is not two languages.
    """
    return (row for row, _, _ in placed_pairs(spec))


Placed = tuple[Example | Refused, str, int]
"""What came of a row, its file and its line."""


def placed_pairs(spec: SourceSpec) -> Iterator[Placed]:
    """Yield what :func:`read_pairs` yields, each with the file and line of its row."""
    languages = spec.pair_languages()
    for path, line, row in pair_rows(spec):
        place = _Place(path, line)
        found = Refused(BLANK_LINE, path, line) if row is None else _pair(row, languages, place)
        yield found, path, line


def text_example(row: Mapping[str, Any], language: str, path: str, line: int) -> Example | Refused:
    """Return what ``read_text`` yields for one row.

    Args:
        row: the columns.
        language: language of a row that names none.
        path: the file.
        line: 1-based line.

    Raises:
        DataError: the row is broken.
    """
    return _text(row, language, _Place(path, line))


def _text(row: Mapping[str, Any], default: str, place: _Place) -> Example | Refused:
    text = _string(row, "text", place)
    if not text.strip():
        return Refused(EMPTY_TEXT, *place)
    language = _language(row, "lang", place) or default
    spans = [*_mentions(row, "mentions", "text", text, place)]
    spans += _spans(row, "spans", "text", text, place)
    return Example(_identifier(row, place), {"text": text}, {"text": language}, spans)


def _pair(
    row: Mapping[str, Any], languages: tuple[str, str] | None, place: _Place
) -> Example | Refused:
    if isinstance(row, Unit):
        found = _from_unit(row, languages, place)
        if found is None:
            return Refused(NO_TRANSLATION, *place)
        row = found
    elif "translation" in row:
        row = _from_translation(row, languages, place)
    texts = {half: _string(row, half, place) for half in ("src", "tgt")}
    if not all(text.strip() for text in texts.values()):
        return Refused(EMPTY_HALF, *place)
    if texts["src"].strip() == texts["tgt"].strip():
        return Refused(EQUAL_HALVES, *place)
    spans: list[Span] = []
    for half, text in texts.items():
        spans += _mentions(row, f"{half}_mentions", half, text, place)
        spans += _spans(row, f"{half}_spans", half, text, place)
    codes = _pair_codes(row, languages, place)
    return Example(_identifier(row, place), texts, codes, spans)


def _from_unit(
    unit: Unit, languages: tuple[str, str] | None, place: _Place
) -> Mapping[str, Any] | None:
    """Spell a unit out in columns; ``None`` if it is not in both languages.

    Without languages from the flag, a unit of exactly two gives them in its own order.
    """
    texts: dict[str, str] = {}
    for tag, text in unit.items():
        texts.setdefault(_standard(tag, place), text)
    if languages is None and len(texts) > 2:
        raise place.error(
            f"a translation unit in {len(texts)} languages: {listed(texts)}",
            "say which two are meant: en-fr=FILE",
        )
    wanted = languages or tuple(texts)
    if len(wanted) != 2 or not set(wanted) <= set(texts):
        return None
    src, tgt = wanted
    return {"src": texts[src], "tgt": texts[tgt], "src_lang": src, "tgt_lang": tgt}


def _from_translation(
    row: Mapping[str, Any], languages: tuple[str, str] | None, place: _Place
) -> Mapping[str, Any]:
    """Spell ``{"translation": {"en": …, "fr": …}}`` out in columns; the flag gives the order."""
    halves = row["translation"]
    found = list(halves) if isinstance(halves, Mapping) else []
    by_code = {_standard(tag, place): tag for tag in found}
    wanted = languages or tuple(by_code)
    if len(wanted) != 2 or len(by_code) < len(found) or not set(wanted) <= set(by_code):
        raise place.error(
            f"'translation' has the languages {listed(found) or 'none'}, "
            f"not {' and '.join(languages or ()) or 'two'}",
            'write {"translation": {"en": "…", "fr": "…"}}; with more languages, en-fr=FILE',
        )
    src, tgt = wanted
    texts = {"src": halves[by_code[src]], "tgt": halves[by_code[tgt]]}
    return {**row, **texts, "src_lang": src, "tgt_lang": tgt}


def _pair_codes(
    row: Mapping[str, Any], languages: tuple[str, str] | None, place: _Place
) -> dict[str, str]:
    codes = {}
    for index, half in enumerate(("src", "tgt")):
        code = _language(row, f"{half}_lang", place) or (languages[index] if languages else "")
        if not code:
            raise place.error(
                f"the language of '{half}' is not given",
                f"add a column {half}_lang, or write en-fr=FILE",
            )
        codes[half] = code
    return codes


def _mentions(
    row: Mapping[str, Any], column: str, field: str, text: str, place: _Place
) -> Iterator[Span]:
    for mark, start, end in _marks(row, column, field, text, place):
        identifier = _entity_id(mark, column, place)
        if identifier:
            yield Span(field, start, end, _ENTITY, identifier)


def _spans(
    row: Mapping[str, Any], column: str, field: str, text: str, place: _Place
) -> Iterator[Span]:
    for mark, start, end in _marks(row, column, field, text, place):
        kind = _ENTITY if _absent(mark.get("kind")) else mark["kind"]
        if not isinstance(kind, str):
            raise place.error(f"'kind' in '{column}' is {shown(kind)}, not a text", "write a word")
        identifier = _entity_id(mark, column, place)
        if identifier or kind != _ENTITY:
            yield Span(field, start, end, kind, identifier)


def _marks(
    row: Mapping[str, Any], column: str, field: str, text: str, place: _Place
) -> Iterator[tuple[Mapping[str, Any], int, int]]:
    marks = () if _absent(row.get(column)) else row[column]
    if not isinstance(marks, list | tuple):
        raise place.error(f"'{column}' is {shown(marks)}, not a list", 'write [{"start": …}, …]')
    for number, mark in enumerate(marks, start=1):
        if not isinstance(mark, Mapping):
            raise place.error(
                f"item {number} of '{column}' is {shown(mark)}, not an object",
                'write {"start": 0, "end": 5, "id": "Q1"}',
            )
        start, end = mark.get("start"), mark.get("end")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            raise place.error(
                f"item {number} of '{column}' goes from {shown(start)} to {shown(end)}, outside "
                f"'{field}' with its {len(text)} characters",
                "offsets are characters counted from 0, 0 <= start < end <= length of the text",
            )
        yield mark, start, end


def _entity_id(mark: Mapping[str, Any], column: str, place: _Place) -> str:
    given = (mark.get(name) for name in ("qid", "id", "entity"))
    value = next((value for value in given if not _absent(value)), "")
    if not isinstance(value, str):
        raise place.error(
            f"an id in '{column}' is {shown(value)}, not a text",
            'give the entity\'s own identifier in quotes, such as "Q42"',
        )
    return value


def _string(row: Mapping[str, Any], column: str, place: _Place) -> str:
    if column not in row:
        raise place.error(
            f"no '{column}' among {listed(sorted(map(str, row)))}{nearest(column, map(str, row))}",
            f"every row needs '{column}'",
        )
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise place.error(f"'{column}' is {shown(value)}, not a text", "put it in quotes")
    return value


def _language(row: Mapping[str, Any], column: str, place: _Place) -> str:
    """Return the row's language in its standard form, empty when the row gives none."""
    tag = row.get(column)
    return "" if _absent(tag) else _standard(tag, place)


def _standard(tag: Any, place: _Place) -> str:
    if not isinstance(tag, str):
        raise place.error(f"a language is {shown(tag)}, not a text", "codes are like en, zh-Hant")
    try:
        return valid_language(tag.strip())
    except DataError as error:
        raise place.error(error.message, error.hint) from error


def _identifier(row: Mapping[str, Any], place: _Place) -> str:
    given = row.get("id")
    if _absent(given):
        return f"{place.path}:{place.line}"
    if isinstance(given, Mapping | list | tuple):
        raise place.error(f"'id' is {shown(given)}, not a text or a number", "put it in quotes")
    return str(given)


def _absent(value: Any) -> bool:
    """Tell whether a column says nothing; 0, false and [] say something, and mostly wrong."""
    return value is None or (isinstance(value, str) and not value)
