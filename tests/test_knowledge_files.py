from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from pathlib import Path

import pytest

from ptm_plus.errors import DataError
from ptm_plus.files import file_sha256, open_lines, plain_suffix

TEXT = "Zürich\nпример\u2028same line\n\nlast"
LINES = [(1, "Zürich"), (2, "пример\u2028same line"), (3, ""), (4, "last")]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)],
)
def test_lines_are_the_same_however_compressed(tmp_path, suffix, compress):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(TEXT.encode()))
    assert list(open_lines(path)) == LINES


def test_windows_line_ends_and_a_byte_order_mark_are_dropped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert list(open_lines(path)) == [(1, "one"), (2, "two")]


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"fine\nZ\xfcrich\n")
    lines = open_lines(path)
    assert next(lines) == (1, "fine")
    with pytest.raises(DataError, match=r"latin1\.txt:2: not UTF-8: byte 0xfc at byte 2"):
        next(lines)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(open_lines(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"cannot be opened"):
        list(open_lines(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        file_sha256(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)],
)
def test_compressed_files_cut_short_or_mislabelled_are_data_errors(tmp_path, suffix, compress):
    whole = compress(b"".join(hashlib.sha256(bytes([i])).digest() + b"a\n" for i in range(250)))
    cut, wrong = tmp_path / f"cut{suffix}", tmp_path / f"wrong{suffix}"
    cut.write_bytes(whole[: len(whole) // 2])
    wrong.write_bytes(b"plain text\n" * 20)
    for path in (cut, wrong):
        with pytest.raises(DataError):
            list(open_lines(path))


def test_an_empty_file_yields_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"")
    assert list(open_lines(path)) == []


def test_suffix_and_hash(tmp_path):
    assert plain_suffix("x/a.b.JSONL.gz") == ".jsonl"
    assert plain_suffix(Path("a.tsv")) == ".tsv"
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_members_follow_one_another_and_nothing_behind_them_is_passed_over(tmp_path, suffix):
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix]
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(b"one\n") + compress(b"two\n") + b"\0" * 8)
    assert [line for _, line in open_lines(path)] == ["one", "two"]
    second = bytearray(compress(b"two\n"))
    second[0] ^= 1  # so that it is none: the standard library drops it in silence for two of three
    path.write_bytes(compress(b"one\n") + second)
    with pytest.raises(DataError, match="cannot be read after line"):
        list(open_lines(path))


def test_an_old_lzma_file_is_no_xz_file(tmp_path):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"one\n", lzma.FORMAT_ALONE))
    with pytest.raises(DataError, match="cannot be read after line 0"):
        list(open_lines(path))
