"""Ways to spoil a document: its bytes, its lines, its columns, its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Spoil = Callable[[bytes, Random], bytes]

NASTY = (
    *(b"", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"),
    *(b"\r", b"\n", b"\r\n", b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\x1b[31m", b"\x7f"),
    *(b'"', b'""', b"'", b",", b"|", b"\\", b"\\u", b"\\ud800", b"\\udc00\\ud800", b"\\u0000"),
    *(b"{", b"}", b"[", b"]", b"[[[[", b":", b"=", b"#", b"-", b"+", b".", b"/", b"*", b"../"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"null", b"true", b"false", b"None"),
    *(
        b"0",
        b"-1",
        b"1.5",
        b"1e999",
        b"-0",
        b"0x1F",
        b"1_000",
        b"0x" + b"f" * 5000,
        b"9" * 30,
        b"9" * 5000,
    ),
    *(b"[" * 3000, b"{" * 500, b'{"a":' * 3000, b"[" * 900 + b"]" * 900, b"a." * 2000),
    *("\u2028 \u2029 \u0085 \u00a0 \u200b \ufeff \u202e \u0301 \ufffe \ufffd".encode().split(b" ")),
    *("العربية हिन्दी 東京 e\u0301\u0323\u0308 👩‍👩‍👧‍👦 🇫🇷 \U0010ffff ﷽ ß İ ǆ".encode().split(b" ")),
    *(b"2024-01-01", b"en", b"x-", b"i-klingon", b"zh-hant-TW", b"und", b"PK\x03\x04", b"PAR1"),
)
"""What is put into the middle of a document."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.0, 1.5, 2.0, -0.0),
    *(float("nan"), float("inf"), -float("inf"), 1e308),
    *("", " ", "x", "0", "\0", "a\0b", "\ud800", "a\udc00b", "\u2028", "\ufeff", "\n", "\t", "en"),
    *("e\u0301", "東京", "🇫🇷", "../../x", "/", "Q1", "x" * 300, "9" * 5000),
    *([], {}, [None], [[]], [{}], {"a": 1}, {"": ""}, ["a", "a"], [0, 1], {"start": 0, "end": 1}),
)
"""What takes the place of a value in JSON."""

RAW = (
    *("9" * 5000, "-" + "9" * 5000, "1e400", "NaN", "-Infinity", "01", "+1", ".5", "1.", "0x1"),
    *("[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "[" * 900 + "]" * 900),
    *('{"a":' * 300 + '"\\u00e9"' + "}" * 300, "[" * 980 + '"\\u00e9"' + "]" * 980, "'x'", "nul"),
    *('"\\ud800"', '"\\ud83d\\ude00"', '"\\uD800\\u0041"', '"\\x"', '"\\u12"', '"\t"', '"'),
)
"""What JSON's own writer would not write."""

_PLACE = '"@raw@"'


def spoil(content: bytes, name: str, random: Random) -> bytes:
    """Return a document with one to four things changed.

    Args:
        content: the document.
        name: its file name; the suffix tells what it can be spoilt as.
        random: source of choices.
    """
    ways = _WAYS.get(name[name.rfind(".") :], (spoil_bytes,))
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        content = random.choice(ways)(content, random)
    return content


def spoil_bytes(content: bytes, random: Random) -> bytes:
    """Flip, insert, drop, repeat or cut bytes."""
    at = random.randint(0, len(content))
    end = min(len(content), at + random.choice((1, 1, 2, 4, 16, 256)))
    kind = random.randrange(8)
    if kind == 0 and at < len(content):
        flipped = bytes([content[at] ^ (1 << random.randrange(8))])
        return content[:at] + flipped + content[at + 1 :]
    if kind == 1:
        return content[:at] + random.randbytes(random.choice((1, 2, 8))) + content[at:]
    if kind == 2:
        return content[:at] + content[end:]
    if kind == 3:
        return content[:end] + content[at:end] * random.choice((1, 2, 50)) + content[end:]
    if kind == 4:
        return random.choice((content[:at], content[at:], b"", content * 2))
    if kind == 5:
        return content[:at] + random.choice(NASTY) + content[end:]
    return content[:at] + random.choice(NASTY) + content[at:]


def spoil_lines(content: bytes, random: Random) -> bytes:
    """Swap, drop, repeat, blank or join lines, or change how they end."""
    lines = content.split(b"\n")
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.randrange(7)
    if kind == 0:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(other, lines[at])
    elif kind == 3:
        lines.insert(at, random.choice((b"", b" ", b"\t", b"\t\t\t", b"\xc2\xa0", b'""', b"{}")))
    elif kind == 4:
        return content.replace(b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b"")))
    elif kind == 5:
        lines[at] = lines[at] + random.choice((b"\r", b" ", b"\t", b",", b"\x1c"))
    else:
        lines[at] = lines[at] + lines.pop(other) if len(lines) > 1 and other > at else b""
    return b"\n".join(lines)


def _spoil_columns(separator: bytes) -> Spoil:
    def spoil_columns(content: bytes, random: Random) -> bytes:
        rows = [line.split(separator) for line in content.split(b"\n")]
        at = random.randrange(max(map(len, rows)))
        kind = random.randrange(6)
        fill = random.choice(NASTY)
        chosen = rows if random.random() < 0.4 else [random.choice(rows)]
        for cells in chosen:
            _spoil_cell(cells, min(at, len(cells) - 1), kind, fill)
        return b"\n".join(separator.join(cells) for cells in rows)

    return spoil_columns


def _spoil_cell(cells: list[bytes], at: int, kind: int, fill: bytes) -> None:
    if kind == 0 and cells:
        del cells[at]
    elif kind == 1:
        cells.insert(max(at, 0), fill)
    elif kind == 2 and cells:
        cells.append(cells[at])
    elif kind == 3:
        cells.reverse()
    elif cells:
        cells[at] = fill if kind == 4 else b'"' + cells[at] + b'"'


def spoil_json(content: bytes, random: Random) -> bytes:
    """Change one value, key or item of a JSON document."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return spoil_bytes(content, random)
    raw = ""
    if random.random() < 0.3:
        raw = random.choice(RAW)
    new = "@raw@" if raw else random.choice(VALUES)
    value = _changed(value, new, random)
    try:
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return spoil_bytes(content, random)
    if random.random() < 0.1:
        keys = list(value) if isinstance(value, dict) and value else ["text"]
        text = text.replace("{", f'{{{json.dumps(random.choice(keys))}: "again", ', 1)
    return text.replace(_PLACE, raw).encode("utf-8", "surrogatepass")


def _spoil_json_line(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = spoil_json(lines[at], random)
    return b"\n".join(lines)


def _changed(value: Any, new: Any, random: Random) -> Any:
    """Return the value with something in it replaced, dropped, renamed or repeated."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        return _changed_table(dict(value), new, random)
    if isinstance(value, list) and value and random.random() < 0.85:
        items = list(value)
        at = random.randrange(len(items))
        if random.random() < 0.7:
            items[at] = _changed(items[at], new, random)
        else:
            items[at : at + random.randrange(2)] = random.choice(([], [new], [items[at]] * 2))
        return items
    if type(value) is int and abs(value) < 2**64 and random.random() < 0.7:
        return value + random.choice((-1, 1, 1, 10, -10, 0.0))
    return new


def _changed_table(table: dict[str, Any], new: Any, random: Random) -> dict[str, Any]:
    key = random.choice(list(table))
    kind = random.randrange(8)
    if kind == 0:
        del table[key]
    elif kind == 1:
        table[_other_key(key, random)] = table.pop(key)
    elif kind == 2:
        table[_other_key(key, random)] = new
    else:
        table[key] = _changed(table[key], new, random)
    return table


def _other_key(key: str, random: Random) -> str:
    names = ("id", "qid", "entity", "kind", "lang", "spans", "label", "translation", "aliases", "")
    return random.choice((key.upper(), f"{key} ", f"{key}x", "\ud800", "eng", *names))


_LINES: Sequence[Spoil] = (spoil_bytes, spoil_bytes, spoil_lines)
_WAYS: dict[str, Sequence[Spoil]] = {
    ".txt": _LINES,
    ".toml": _LINES,
    ".jsonl": (*_LINES, *[_spoil_json_line] * 5),
    ".json": (spoil_bytes, *[spoil_json] * 3),
    ".tsv": (*_LINES, *[_spoil_columns(b"\t")] * 3),
    ".csv": (*_LINES, *[_spoil_columns(b",")] * 3),
}
