"""Pairs from translation memories (TMX) and from two files of as many lines (Moses)."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptm_plus.components import Refused
from ptm_plus.errors import DataError, SettingsError
from ptm_plus.examples import Example
from ptm_plus.settings_files import resolve
from ptm_plus.settings_paths import anchored, moved
from ptm_plus.sources import parse_source, read_pairs, source_fingerprint
from ptm_plus.sources import tmx as module

PER_FILE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PACKED = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
XML_TEXT = st.text(
    st.characters(
        min_codepoint=0x20, exclude_categories=("Cs",), exclude_characters="\ufffe\uffff"
    ),
    max_size=8,
)


def read(argument: str | Path) -> list[Example | Refused]:
    return list(read_pairs(parse_source(str(argument))))


def halves(argument: str | Path) -> list[object]:
    return [
        tuple(one.fields.values()) if isinstance(one, Example) else one.reason
        for one in read(argument)
    ]


def memory(path: Path, *units: str, head: str = "") -> Path:
    body = "\n".join(f"<tu>{unit}</tu>" for unit in units)
    text = f"<?xml version='1.0'?>{head}\n<tmx version='1.4'><body>\n{body}\n</body></tmx>\n"
    path.write_text(text, encoding="utf-8")
    return path


def unit(**texts: str) -> str:
    return "".join(
        f'<tuv xml:lang="{tag.replace("_", "-")}"><seg>{text}</seg></tuv>'
        for tag, text in texts.items()
    )


# ---------------------------------------------------------------------------------------------
# TMX


@given(pairs=st.lists(st.tuples(XML_TEXT, XML_TEXT), min_size=1, max_size=5))
@PER_FILE
def test_segments_come_back_as_written(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    path = memory(tmp_path / "a.tmx", *(unit(en=escape(s), fr=escape(t)) for s, t in pairs))
    for found, (src, tgt) in zip(read(path), pairs, strict=True):
        if isinstance(found, Example):
            assert found.fields == {"src": src, "tgt": tgt}
            assert found.languages == {"src": "en", "tgt": "fr"}
        else:
            assert not src.strip() or not tgt.strip() or src.strip() == tgt.strip()


def test_lines_languages_and_the_order_that_the_flag_gives(tmp_path: Path) -> None:
    path = memory(tmp_path / "a.tmx", unit(EN_US="one", fr="un"), unit(fr="deux", en_us="two"))
    first, second = read(path)
    assert isinstance(first, Example)
    assert isinstance(second, Example)
    assert (first.id, second.id) == (f"{path}:3", f"{path}:4")
    assert first.languages == {"src": "en-US", "tgt": "fr"}
    assert second.languages == {"src": "fr", "tgt": "en-US"}
    assert halves(f"fr-en-US={path}") == [("un", "one"), ("deux", "two")]


def test_units_in_more_languages_and_in_fewer(tmp_path: Path) -> None:
    many = memory(tmp_path / "a.tmx", unit(en="a", fr="b"), unit(en="a", fr="b", de="c"))
    with pytest.raises(DataError, match="in 3 languages: en, fr, de") as caught:
        read(many)
    assert caught.value.line == 4
    assert halves(f"de-fr={many}") == ["not in both languages", ("c", "b")]
    assert halves(memory(tmp_path / "b.tmx", unit(en="a"))) == ["not in both languages"]
    twice = memory(tmp_path / "c.tmx", unit(en="a", fr="b").replace("fr", "en") + unit(fr="c"))
    assert halves(twice) == [("a", "c")]


def test_markup_is_no_text_and_emphasis_is(tmp_path: Path) -> None:
    inside = (
        "a <bpt i='1'>&lt;b&gt;<sub>x</sub></bpt><hi>bold</hi><ept i='1'>&lt;/b&gt;</ept>&amp;c"
    )
    path = memory(tmp_path / "a.tmx", unit(en=inside, fr="<![CDATA[<un>]]><ph/>"))
    assert halves(path) == [("a bold&c", "<un>")]


@pytest.mark.parametrize("suffix", PACKED)
def test_memories_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    plain = memory(tmp_path / "a.tmx", unit(en="one", fr="un"))
    packed = tmp_path / f"b.tmx{suffix}"
    packed.write_bytes(PACKED[suffix](plain.read_bytes()))
    assert halves(packed) == [("one", "un")]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read after line"):
        read(packed)


def test_a_long_memory_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = memory(tmp_path / "a.tmx", *(unit(en=f"line {n}", fr=f"ligne {n}") for n in range(5000)))
    units = module.tmx_units(str(path))
    assert next(units)[1] == {"en": "line 0", "fr": "ligne 0"}
    assert path.stat().st_size > 4 * module._CHUNK
    assert sum(1 for _ in units) == 4999


def test_utf_16_is_read_as_it_declares_itself(tmp_path: Path) -> None:
    body = f"<tmx><body><tu>{unit(en='é', ja='東京')}</tu></body></tmx>"
    text = f"<?xml version='1.0' encoding='utf-16'?>{body}"
    path = tmp_path / "a.tmx"
    path.write_bytes(text.encode("utf-16"))
    assert halves(path) == [("é", "東京")]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("<tmx>\n<body><tu>", "broken XML: no element found", 2),
        ("<tmx>\n<tu></tmx>", "broken XML: mismatched tag", 2),
        ("<html>\n</html>", "the document is '<html>', not <tmx>", 1),
        ("<tmx>\n<tu><tuv><seg>a</seg></tuv></tu></tmx>", "a <tuv> without a language", 2),
        ("<tmx>\n<tu><seg>a</seg></tu></tmx>", "a <seg> that is out of place", 2),
        ("<tmx>\n<tuv lang='en'/></tmx>", "a <tuv> that is out of place", 2),
        ("<tmx><tu>\n<tu/></tu></tmx>", "a <tu> that is out of place", 2),
        ("<tmx>\n<tu>&eacute;</tu></tmx>", "broken XML: undefined entity", 2),
        ("<tmx/>", "holds no rows", None),
        ("", "holds no rows", None),
        ("<?xml version='1.0' encoding='none'?><tmx/>", "unknown encoding", 1),
    ],
)
def test_what_is_no_memory_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str, line: int | None
) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert caught.value.line == line


def test_a_document_type_that_only_points_elsewhere_is_left_alone(tmp_path: Path) -> None:
    head = "<!DOCTYPE tmx SYSTEM 'tmx14.dtd'>"
    assert halves(memory(tmp_path / "a.tmx", unit(en="a", fr="b"), head=head)) == [("a", "b")]
    unknown = memory(tmp_path / "b.tmx", unit(en="a&eacute;", fr="b"), head=head)
    with pytest.raises(DataError, match="'&eacute;' is defined nowhere"):
        read(unknown)


# ---------------------------------------------------------------------------------------------
# Two files


def two_files(folder: Path, src: str, tgt: str, names: tuple[str, str] = ("a.en", "a.fr")) -> str:
    for name, text in zip(names, (src, tgt), strict=True):
        (folder / name).write_bytes(text.encode())
    return ",".join(str(folder / name) for name in names)


def test_line_n_is_the_translation_of_line_n(tmp_path: Path) -> None:
    given_ = two_files(tmp_path, "one\n\ntwo\r\nthree\n", "\ufeffun\n\n \ntrois")
    first, blank, empty, third = read(given_)
    assert first == Example(
        f"{tmp_path}/a.en:1", {"src": "one", "tgt": "un"}, {"src": "en", "tgt": "fr"}
    )
    assert blank == Refused("blank line", f"{tmp_path}/a.en", 2)
    assert empty == Refused("empty half", f"{tmp_path}/a.en", 3)
    assert isinstance(third, Example)
    assert third.fields == {"src": "three", "tgt": "trois"}


@pytest.mark.parametrize(("src", "tgt"), [("a\nb\nc\n", "x\n"), ("a\n", "x\ny\nz"), ("", "x\n")])
def test_files_of_unequal_length_are_refused_with_both_counts(
    tmp_path: Path, src: str, tgt: str
) -> None:
    given_ = two_files(tmp_path, src, tgt)
    counts = [len(text.split()) for text in (src, tgt)]
    with pytest.raises(DataError, match=rf"has {counts[0]} lines, and .*a.fr has {counts[1]}"):
        read(given_)


def test_two_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read(two_files(tmp_path, "", ""))


@pytest.mark.parametrize("suffix", PACKED)
def test_parallel_files_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    for name, text in (("a.en", b"one\n"), ("a.fr", b"un\n")):
        (tmp_path / f"{name}{suffix}").write_bytes(PACKED[suffix](text))
    assert halves(f"{tmp_path}/a.en{suffix},{tmp_path}/a.fr{suffix}") == [("one", "un")]


def test_languages_come_from_the_flag_or_from_the_names(tmp_path: Path) -> None:
    given_ = two_files(tmp_path, "one\n", "eins\n", ("a.txt", "b.txt"))
    (pair,) = read(f"en-de={given_}")
    assert isinstance(pair, Example)
    assert pair.languages == {"src": "en", "tgt": "de"}
    with pytest.raises(SettingsError, match="does not say which languages") as caught:
        read(given_)
    assert caught.value.hint == "write en-fr=corpus.en,corpus.fr"
    assert parse_source(
        two_files(tmp_path, "a\n", "b\n", ("x.zh-hant", "x.eng"))
    ).pair_languages() == (
        "zh-Hant",
        "en",
    )


def test_a_name_with_a_comma_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a,b.tsv"
    path.write_text("one\tun\ten\tfr\n", encoding="utf-8")
    assert halves(path) == [("one", "un")]
    assert halves(f"{tmp_path}/a,*.tsv") == [("one", "un")]
    with pytest.raises(DataError, match="no such file"):
        parse_source(f"en-fr={path},{tmp_path}/none.fr")


def test_the_fingerprint_follows_both_files_and_how_they_are_read(tmp_path: Path) -> None:
    given_ = two_files(tmp_path, "a\tb\n", "c\td\n", ("a.tsv", "b.tsv"))
    parallel = source_fingerprint(parse_source(f"en-fr={given_}"))
    assert parallel != source_fingerprint(parse_source(f"en-fr={tmp_path}/*.tsv"))
    two_files(tmp_path, "a\tb\n", "c\te\n", ("a.tsv", "b.tsv"))
    assert parallel != source_fingerprint(parse_source(f"en-fr={given_}"))
    one = source_fingerprint(parse_source(two_files(tmp_path, "a\n", "b\n", ("x.en", "x.fr"))))
    assert one != source_fingerprint(
        parse_source(two_files(tmp_path, "a\n", "b\n", ("x.en", "x.de")))
    )


def test_both_paths_are_written_down_in_full_and_follow_a_moved_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {"data.pairs": ["en-fr=run/a.en,run/a.fr"], "output": "run"}
    settings_ = anchored(resolve(None, flags, ()).settings)
    assert settings_.data.pairs == (f"en-fr={tmp_path}/run/a.en,{tmp_path}/run/a.fr",)
    there = moved(settings_, tmp_path / "new")
    assert there.data.pairs == (f"en-fr={tmp_path}/new/a.en,{tmp_path}/new/a.fr",)
