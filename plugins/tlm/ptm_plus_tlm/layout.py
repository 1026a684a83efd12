"""The pair layout: both halves in one sequence, between the special tokens of a frame."""

from __future__ import annotations

from ptm_plus import LaidOut, LayoutInput, Segment, field_segment, special_segment
from ptm_plus_tlm.frames import Frame


def pair_layout(given: LayoutInput, *, frame: Frame, swap: bool) -> list[LaidOut]:
    """Lay out ``prefix x middle y suffix`` (Conneau and Lample 2019, section 3.3).

    The halves are movable, so that their order can be drawn at each access; types and restarts
    belong to the slots. A pair that is too long loses tokens from its longer half first; no half is
    ever cut to nothing.

    Args:
        given: an example with exactly two fields.
        frame: special tokens, types and positions.
        swap: whether the halves may change places.
    """
    (first, x), (second, y) = given.pieces.items()
    if not len(x) or not len(y):
        return []
    marks = len(frame.prefix) + len(frame.middle) + len(frame.suffix)
    left, right = fit(len(x), len(y), given.max_length - marks)
    languages, types = given.example.languages, frame.types
    opened = frame.restart and len(frame.middle) > 1
    segments = (
        special_segment(frame.prefix, types[0]),
        field_segment(x, first, languages[first], 0, left, movable=swap, type=types[1]),
        *_middle(frame, opened),
        field_segment(
            y,
            second,
            languages[second],
            0,
            right,
            movable=swap,
            type=types[3],
            restart=frame.restart and not opened,
        ),
        special_segment(frame.suffix, types[4]),
    )
    cut = len(x) + len(y) - left - right
    return [LaidOut(tuple(s for s in segments if len(s)), given.example.labels, truncated=cut)]


def _middle(frame: Frame, opened: bool) -> tuple[Segment, ...]:
    """Return the tokens between the halves; the last may open the second half, at position 0."""
    if not opened:
        return (special_segment(frame.middle, frame.types[2]),)
    return (
        special_segment(frame.middle[:-1], frame.types[2]),
        special_segment(frame.middle[-1:], frame.types[2], restart=True),
    )


def fit(left: int, right: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each half fit; the longer half gives way first.

    Args:
        left: tokens of the first half, at least 1.
        right: tokens of the second half, at least 1.
        room: tokens for both, at least 2.
    """
    if left + right <= room:
        return left, right
    short = min(left, right, room // 2)
    return (short, room - short) if left <= right else (room - short, short)
