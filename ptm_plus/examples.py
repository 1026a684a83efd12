"""What a reader yields and an annotator extends: text with spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Span:
    """A marked stretch of one text field.

    Attributes:
        field: name of the text field that it lies in.
        start: first character.
        end: one past the last character.
        kind: what it marks: ``"entity"``, ``"phrase"``, a plugin's own word.
        id: label of what it stands for (a QID, say), by its own identifier; ``""`` for none.
    """

    field: str
    start: int
    end: int
    kind: str
    id: str = ""


@dataclass(slots=True)
class Example:
    """One document, pair, triple or labelled sentence, as characters.

    Attributes:
        id: identifier given by the source, or ``path:line``.
        fields: text by field name: ``{"text": …}``, or ``{"src": …, "tgt": …}`` for a pair.
        languages: BCP-47 code by field name; ``"und"`` where it is not known.
        spans: marked stretches, in no particular order.
        labels: values for the sequence table, by name.
        held_out_by: text that decides whether it is held out; empty for the first one of its own.
    """

    id: str
    fields: dict[str, str]
    languages: dict[str, str]
    spans: list[Span] = field(default_factory=list)
    labels: Mapping[str, Any] = field(default_factory=dict)
    held_out_by: str = ""


def is_unicode(example: Example) -> bool:
    """Tell whether all text of an example can be encoded; half a surrogate pair cannot."""
    try:
        for text in example.fields.values():
            text.encode()
    except UnicodeEncodeError:
        return False
    return True
