"""What the model will see: masked sequences as text, by unit kind.

No model is built: streams, tokenizer and mask kinds are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptm_plus.errors import SettingsError, nearest

if TYPE_CHECKING:
    from ptm_plus.components import MaskPlan
    from ptm_plus.data import Collator, Row, StreamData
    from ptm_plus.prepared import Prepared
    from ptm_plus.progress import Watch
    from ptm_plus.settings import RunSettings
    from ptm_plus.views import View

TREATMENTS = ("keep", "mask", "random")
"""What happens to a mention's entity, by its number in a mask plan."""


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
        PtmPlusError: as ``prepared.prepare``.
    """
    from ptm_plus.prepared import prepare

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
    from ptm_plus.arrangement import gather
    from ptm_plus.components import Emphasis, UnitKind
    from ptm_plus.data import Collator
    from ptm_plus.launch import of_type
    from ptm_plus.masking import Vocabulary, word_kind
    from ptm_plus.prepare.tokenization import ordinary_ids

    settings = prepared.settings
    core = [word_kind(settings.masking.unit)]
    kinds = gather(prepared.plugins, "ptm_masking", prepared.context, core)
    vocabulary = Vocabulary(int(prepared.tokenizer.mask_token_id), ordinary_ids(prepared.tokenizer))
    chosen, seed = of_type(kinds, UnitKind), settings.train.seed
    emphases = of_type(kinds, Emphasis)
    return Collator(prepared.streams, chosen, [], vocabulary, seed, prepared.unmasked, emphases)


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
