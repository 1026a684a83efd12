"""A preview as coloured text that can be read without colour too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from rich.style import Style
from rich.text import Text

_COLOURS = ("cyan", "magenta", "green", "blue", "bright_red")
_SEQUENCE = Mapping[str, Any]


def preview_text(document: Mapping[str, Any]) -> Text:
    """Return a preview as coloured text that can be read without colour too."""
    text = Text()
    kinds = _kinds(document)
    for name, stream in document["streams"].items():
        text.append(f"{name}", style="bold")
        text.append(f"  epoch {document['epoch']}, mask rate {document['mask_rate']:g}\n")
        for sequence in stream["sequences"]:
            text.append(f"\n{sequence['stratum']} ", style="bold")
            text.append(f"sequence {sequence['number']}, {_summary(sequence)}\n", style="dim")
            text.append_text(sequence_text(sequence, kinds))
            text.append("\n")
        text.append("\n")
    return text + _legend(kinds)


def _kinds(document: Mapping[str, Any]) -> dict[str, str]:
    names = {
        token["kind"]
        for stream in document["streams"].values()
        for sequence in stream["sequences"]
        for token in sequence["tokens"]
    } - {None, "word"}
    return {"word": "yellow", **dict(zip(sorted(names), cycle(_COLOURS), strict=False))}


def _summary(sequence: _SEQUENCE) -> str:
    tokens = [token for token in sequence["tokens"] if not token["special"]]
    predicted = sum(token["kind"] is not None for token in tokens)
    return f"{len(sequence['tokens'])} tokens, {predicted} of {len(tokens)} predicted"


def sequence_text(sequence: _SEQUENCE, kinds: Mapping[str, str]) -> Text:
    """Return one sequence: ``⟦…⟧`` is predicted, ``{…}`` a mention with its id.

    What is marked without standing for anything (a phrase) is underlined only.
    """
    text, tokens = Text(), sequence["tokens"]
    spans = sequence["mentions"]
    opened = {span["start"]: span for span in spans if _attached(span)}
    marked = {at for span in spans for at in range(span["start"], span["end"])}
    borders = {at for span in spans for at in (span["start"], span["end"])}
    inside: dict[str, Any] | None = None
    for at, token in enumerate(tokens):
        if at and not token["glued"]:
            text.append(" ")
        if inside is None and at in opened:
            inside = opened[at]
            text.append("{", style="dim")
        _append(text, tokens, at, kinds, borders, underline=at in marked)
        if inside is not None and at + 1 == inside["end"]:
            text.append(f"}}({_attached(inside)})", style="dim")
            inside = None
    return text


def _append(
    text: Text,
    tokens: Sequence[Mapping[str, Any]],
    at: int,
    kinds: Mapping[str, str],
    borders: set[int],
    underline: bool,
) -> None:
    token = tokens[at]
    how = (token["kind"], token["replaced"])
    if token["kind"] is None:
        text.append(token["text"], style=Style(dim=token["special"], underline=underline))
        return
    style = Style(
        color=kinds[token["kind"]],
        underline=underline,
        reverse=token["replaced"] == "mask",
        bold=token["replaced"] == "random",
    )
    joined = token["glued"] and _how(tokens, at - 1) == how and token["replaced"] == "mask"
    joined &= at not in borders
    kind = "" if token["kind"] == "word" or joined else f"{token['kind']} "
    more = at + 1 < len(tokens) and tokens[at + 1]["glued"] and _how(tokens, at + 1) == how
    more &= at + 1 not in borders
    close = not (more and token["replaced"] == "mask")
    signs = {"mask": "", "keep": "=", "random": f"→{token['input']}"}
    body = token["text"] + signs[token["replaced"]]
    text.append(f"{'' if joined else '⟦'}{kind}{body}{'⟧' if close else ''}", style=style)


def _how(tokens: Sequence[Mapping[str, Any]], at: int) -> tuple[Any, Any]:
    return tokens[at]["kind"], tokens[at]["replaced"]


def _attached(mention: Mapping[str, Any]) -> str:
    """Return what a span stands for and what happens to that; nothing for one without either."""
    if not mention["id"] and mention["treatment"] is None:
        return ""
    words = [mention["id"] or mention["kind"], mention["treatment"] or ""]
    return " ".join(words).strip()


def _legend(kinds: Mapping[str, str]) -> Text:
    text = Text("⟦a⟧ masked   ⟦a→b⟧ replaced at random   ⟦a=⟧ kept; all three are predicted\n")
    text.append("{a}(id keep | mask | random) a mention, and what happens to its entity")
    text.append("\nunderlined: a mention, a phrase or what else was marked in the text")
    others = [name for name in kinds if name != "word"]
    if others:
        text.append("\nunits of other kinds than words carry the kind's name: ")
        for name in others:
            text.append(f"{name} ", style=kinds[name])
    text.stylize("dim")
    return text
