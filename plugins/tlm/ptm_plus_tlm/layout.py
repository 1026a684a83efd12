"""The pair layout: both halves in one sequence, as the tokenizer's own template joins them."""

from __future__ import annotations

from ptm_plus import LaidOut, LayoutInput, field_segment, special_segment


def pair_layout(given: LayoutInput, *, restart: bool, swap: bool) -> list[LaidOut]:
    """Lay out ``prefix x middle y suffix`` (Conneau and Lample 2019, section 3.3).

    The halves are movable, so that their order can be drawn at each access. With ``restart`` the
    positions of the second slot start from 0 again: its first token has no parent. A pair that is
    too long loses tokens from its longer half first; no half is ever cut to nothing.

    Args:
        given: an example with exactly two fields.
        restart: restart positions at the second half.
        swap: whether the halves may change places.
    """
    template = given.template
    (first, x), (second, y) = given.pieces.items()
    if not len(x) or not len(y):
        return []
    frame = (template.pair_prefix, template.middle, template.pair_suffix)
    room = given.max_length - sum(len(ids) for ids in frame)
    left, right = fit(len(x), len(y), room)
    types = template.types
    languages = given.example.languages
    segments = (
        special_segment(template.pair_prefix, types[0]),
        field_segment(x, first, languages[first], 0, left, movable=swap, type=types[1]),
        special_segment(template.middle, types[2]),
        field_segment(
            y, second, languages[second], 0, right, movable=swap, type=types[3], restart=restart
        ),
        special_segment(template.pair_suffix, types[4]),
    )
    cut = len(x) + len(y) - left - right
    return [LaidOut(tuple(s for s in segments if len(s)), given.example.labels, truncated=cut)]


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
