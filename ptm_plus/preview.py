"""What the model will see: masked sequences as text, by unit kind.

No model is built: streams, tokenizer and mask kinds are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.style import Style
from rich.text import Text

from ptm_plus.errors import SettingsError, nearest

if TYPE_CHECKING:
    from ptm_plus.components import MaskPlan
    from ptm_plus.data import Collator, Row, StreamData
    from ptm_plus.progress import Watch
    from ptm_plus.run import Prepared
    from ptm_plus.settings import RunSettings
    from ptm_plus.views import View

TREATMENTS = ("keep", "mask", "random")
"""What happens to a mention's entity, by its number in a mask plan."""

_COLOURS = ("cyan", "magenta", "green", "blue", "bright_red")
_SEQUENCE = dict[str, Any]


def make_preview(
    settings: RunSettings, watch: Watch, *, stream: str | None, count: int, epoch: int
) -> dict[str, Any]:
    """Prepare the data and return masked sequences as plain values.

    Args:
        settings: the run's settings.
        watch: where progress goes.
        stream: one stream; all by default.
        count: sequences per stream.
        epoch: epoch whose rows and masks to show.

    Raises:
        SettingsError: there is no such stream.
        PtmPlusError: as ``launch.prepare``.
    """
    from ptm_plus.launch import prepare

    return preview_prepared(prepare(settings, watch), stream=stream, count=count, epoch=epoch)


def preview_prepared(
    prepared: Prepared, *, stream: str | None = None, count: int = 5, epoch: int = 0
) -> dict[str, Any]:
    """Return masked sequences of prepared data; see :func:`make_preview`."""
    names = sorted(prepared.streams)
    if stream is not None and stream not in names:
        raise SettingsError(
            f"--stream {stream}: no such stream{nearest(stream, names)}",
            f"streams: {', '.join(names)}",
        )
    collator = mask_collator(prepared)
    chosen = [stream] if stream is not None else names
    return {
        "epoch": epoch,
        "mask_rate": prepared.settings.masking.rate,
        "streams": {
            name: _stream(prepared, collator, prepared.streams[name], count, epoch)
            for name in chosen
        },
    }


def mask_collator(prepared: Prepared) -> Collator:
    """Return a collator that draws masks and computes no feature."""
    from ptm_plus.components import UnitKind
    from ptm_plus.data import Collator
    from ptm_plus.launch import gather, of_type
    from ptm_plus.masking import Vocabulary, word_kind
    from ptm_plus.tokenization import ordinary_ids

    settings = prepared.settings
    core = [word_kind(settings.masking.unit)]
    kinds = gather(prepared.plugins, "ptm_masking", prepared.context, core)
    vocabulary = Vocabulary(int(prepared.tokenizer.mask_token_id), ordinary_ids(prepared.tokenizer))
    return Collator(prepared.streams, of_type(kinds, UnitKind), [], vocabulary, settings.train.seed)


def first_rows(data: StreamData, epoch: int, rows: int) -> list[Row]:
    """Return the first rows of an epoch, strata in turn."""
    from ptm_plus.data import Row

    plans = {stratum: data.rows(stratum, epoch) for stratum in sorted(data.tokens)}
    found = [
        Row(data.name, stratum, epoch, plan.row(number))
        for number in range(rows)
        for stratum, plan in plans.items()
        if number < len(plan)
    ]
    return found[:rows]


def _stream(
    prepared: Prepared, collator: Collator, data: StreamData, count: int, epoch: int
) -> dict[str, Any]:
    rows = _single(first_rows(data, epoch, count), count)
    rate = prepared.settings.masking.rate
    sequences = []
    for row in rows:
        view = collator.view([row])
        plan = collator.masks(view, rate)
        sequences.append(sequence_values(view, plan, prepared, data) | {"stratum": row.stratum})
    return {"sequences": sequences}


def _single(rows: Sequence[Row], count: int) -> list[Row]:
    """Return rows of one sequence each, taken from the given rows in turn."""
    from ptm_plus.data import Row

    longest = max((len(row.numbers) for row in rows), default=0)
    single = [
        Row(row.stream, row.stratum, row.epoch, row.numbers[place : place + 1])
        for place in range(longest)
        for row in rows
        if place < len(row.numbers)
    ]
    return single[:count]


def sequence_values(
    view: View, plan: MaskPlan, prepared: Prepared, data: StreamData
) -> dict[str, Any]:
    """Return one masked sequence as plain values.

    Args:
        view: a view of one sequence.
        plan: its mask plan.
        prepared: gives tokenizer and labels.
        data: the view's stream; tells which tokens are glued together.
    """
    tokenizer = prepared.tokenizer
    pieces = [_piece(tokenizer, int(number)) for number in view.ids]
    inputs = [_piece(tokenizer, int(number)) for number in plan.ids]
    glued = _glued(view, data)
    tokens = [
        {
            "text": pieces[at],
            "id": int(view.ids[at]),
            "input": inputs[at],
            "input_id": int(plan.ids[at]),
            "special": bool(view.words[at] < 0),
            "glued": bool(glued[at]),
            "kind": plan.kinds[plan.kind[at]] if plan.predicted[at] else None,
            "replaced": _replaced(view, plan, at, int(tokenizer.mask_token_id)),
        }
        for at in range(len(view))
    ]
    return {
        "number": int(view.numbers[0]),
        "tokens": tokens,
        "mentions": _mentions(view, plan, prepared),
    }


def _piece(tokenizer: Any, number: int) -> str:
    """Return a token as text: without the marks of its tokenizer, special tokens as written."""
    token = str(tokenizer.convert_ids_to_tokens(number))
    if number in tokenizer.all_special_ids:
        return token
    text = str(tokenizer.decode([number])).strip().removeprefix("##")
    return text if text and "\ufffd" not in text else token


def _glued(view: View, data: StreamData) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell which tokens follow their neighbour without a space, by their characters."""
    stored = data.store.offsets[view.numbers[view.sequence]] + view.source
    start = np.asarray(data.store.char_start)[stored]
    end = np.asarray(data.store.char_end)[stored]
    glued = np.zeros(len(view), dtype=np.bool_)
    glued[1:] = (start[1:] == end[:-1]) & (view.segments[1:] == view.segments[:-1])
    glued[1:] &= (view.words[1:] >= 0) & (view.words[:-1] >= 0)
    return glued


def _replaced(view: View, plan: MaskPlan, at: int, mask: int) -> str | None:
    if not plan.predicted[at]:
        return None
    if plan.ids[at] == mask:
        return "mask"
    return "keep" if plan.ids[at] == view.ids[at] else "random"


def _mentions(view: View, plan: MaskPlan, prepared: Prepared) -> list[dict[str, Any]]:
    found = []
    for kind, spans in sorted(view.spans.items()):
        labels = prepared.labels.get(kind, ())
        treatment = plan.treatment.get(kind)
        for at in range(len(spans)):
            label = int(spans.id[at])
            found.append(
                {
                    "kind": kind,
                    "id": labels[label] if label >= 0 else "",
                    "start": int(spans.start[at]),
                    "end": int(spans.start[at] + spans.length[at]),
                    "treatment": None if treatment is None else TREATMENTS[treatment[at]],
                }
            )
    return sorted(found, key=lambda one: (one["start"], one["end"]))


# ---------------------------------------------------------------------------------------------
# Text


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
    """Return one sequence: ``⟦…⟧`` is predicted, ``{…}`` a mention with its id."""
    text, tokens = Text(), sequence["tokens"]
    opened = {mention["start"]: mention for mention in sequence["mentions"]}
    inside: dict[str, Any] | None = None
    for at, token in enumerate(tokens):
        if at and not token["glued"]:
            text.append(" ")
        if inside is None and at in opened:
            inside = opened[at]
            text.append("{", style="dim")
        _append(text, tokens, at, kinds, underline=inside is not None)
        if inside is not None and at + 1 == inside["end"]:
            text.append(f"}}{_attached(inside)}", style="dim")
            inside = None
    return text


def _append(
    text: Text,
    tokens: Sequence[Mapping[str, Any]],
    at: int,
    kinds: Mapping[str, str],
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
    kind = "" if token["kind"] == "word" or joined else f"{token['kind']} "
    more = at + 1 < len(tokens) and tokens[at + 1]["glued"] and _how(tokens, at + 1) == how
    close = not (more and token["replaced"] == "mask")
    signs = {"mask": "", "keep": "=", "random": f"→{token['input']}"}
    body = token["text"] + signs[token["replaced"]]
    text.append(f"{'' if joined else '⟦'}{kind}{body}{'⟧' if close else ''}", style=style)


def _how(tokens: Sequence[Mapping[str, Any]], at: int) -> tuple[Any, Any]:
    return tokens[at]["kind"], tokens[at]["replaced"]


def _attached(mention: Mapping[str, Any]) -> str:
    words = [mention["id"] or mention["kind"]]
    if mention["treatment"] is not None:
        words.append(mention["treatment"])
    return f"({' '.join(words)})"


def _legend(kinds: Mapping[str, str]) -> Text:
    text = Text("⟦a⟧ masked   ⟦a→b⟧ replaced at random   ⟦a=⟧ kept; all three are predicted\n")
    text.append("{a}(id keep | mask | random) a mention, and what happens to its entity\n")
    text.append("kinds: ")
    for name, colour in kinds.items():
        text.append(name, style=colour)
        text.append(" (unnamed)  " if name == "word" else "  ")
    text.stylize("dim")
    return text
