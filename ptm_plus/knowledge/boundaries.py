"""Where words end, for scripts with spaces and without, and which names are worth linking."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

UNSPACED = re.compile(
    "["
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"  # Han, supplementary planes
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u0e00-\u0e7f\u0e80-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "]"
)
"""A character of a script that puts no spaces between words."""

_CASELESS = re.compile("[\u10d0-\u10ff]")  # Georgian has upper case in Unicode, not in writing


def cuts_word(text: str, at: int) -> bool:
    """Tell whether a border before character ``at`` of ``text`` would cut a word in two.

    It does not at either end of the text, nor next to a character of an unspaced script; but a
    combining mark is never parted from what it stands on, in any script.
    """
    if at <= 0 or at >= len(text):
        return False
    before, after = text[at - 1], text[at]
    if _is_mark(after):
        return True
    return _joins(before) and _joins(after)


def is_linkable(surface: str, *, min_length: int, lower_case: bool) -> bool:
    """Tell whether a name is specific enough to be looked for in text.

    It has at least two characters, and at least ``min_length`` unless it is written in an unspaced
    script; it has a letter; and, unless ``lower_case``, it has an upper-case letter, a digit, or a
    letter of a script without case (``dead`` and ``in`` are left out, ``B-52`` and ``パリ`` not).
    """
    letters = [char for char in surface if char.isalpha()]
    unspaced = UNSPACED.search(surface) is not None
    if not letters or len(surface) < (2 if unspaced else max(min_length, 2)):
        return False
    return lower_case or any(map(str.isdigit, surface)) or any(map(_tells_a_name, letters))


def _tells_a_name(letter: str) -> bool:
    return unicodedata.category(letter) in ("Lu", "Lt", "Lo") or bool(_CASELESS.match(letter))


@lru_cache(maxsize=65536)
def _joins(char: str) -> bool:
    """Whether the character belongs to a word that spaces delimit."""
    return (char.isalnum() or _is_mark(char)) and UNSPACED.match(char) is None


@lru_cache(maxsize=65536)
def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")
