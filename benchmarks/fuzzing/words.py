"""Text, languages and identifiers to build valid documents from."""

from __future__ import annotations

import unicodedata
from random import Random

WORDS = (
    *(
        "Paris",
        "is",
        "the",
        "capital",
        "of",
        "France",
        "naïve",
        "B-52",
        "e\u0301t\u00e9",
        "İstanbul",
    ),
    *(
        "東京は",
        "日本の首都",
        "Москва",
        "القاهرة",
        "हिन्दी",
        "ไทย",
        "👩‍👩‍👧‍👦",
        "🇫🇷",
        "\U0001f600",
        "ﬁ",
    ),
    *(
        "a\u2028b",
        "c\u0085d",
        "\u200b",
        "\u202eabc",
        "\ufeff",
        "\x1c",
        "\x0c",
        "zero\0byte",
        "§",
        '"',
    ),
    *("don't", "a,b", "x|y", "C:\\u", "\\ud800", "{}", "[1]", "NaN", "null", "#", "=", "-", "12"),
)
LANGUAGES = ("en", "fr", "eng", "zh-Hant", "pt-BR", "en_US", "sr-Latn", "und", "tlh", "ZH-hans-cn")
IDS = ("Q1", "Q42", "Q142", "fr/Paris", "P 31", "01", "é", "東京", "a.b:c")


def phrase(random: Random, longest: int = 8) -> str:
    """Return words of many scripts, now and then with any characters."""
    words = random.choices(WORDS, k=random.randint(1, longest))
    if random.random() < 0.1:
        words.append("".join(character(random) for _ in range(random.randint(1, 6))))
    return " ".join(words)


def cell(random: Random) -> str:
    """Return a phrase that fits into a cell of a .tsv."""
    return phrase(random).replace("\t", " ").replace("\n", " ")


def character(random: Random) -> str:
    """Return any character that is not half of one, and no end of a line."""
    while True:
        found = chr(random.randrange(random.choice((0x80, 0x800, 0x10000, 0x110000))))
        if unicodedata.category(found) != "Cs" and found not in "\t\r\n":
            return found
