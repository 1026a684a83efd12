"""Twenty languages at once: prepared, trained, logged and reported."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cli_files import document, write_files

from ptm_plus.run_log import read_log

CODES = [
    "en",
    "de",
    "fr",
    "es",
    "ru",
    "zh",
    "ko",
    "sw",
    "yo",
    "fi",
    "hu",
    "pl",
    "cs",
    "tr",
    "vi",
    "th",
    "id",
    "ar",
    "he",
    "el",
]


def write_language(folder: Path, place: int, code: str) -> Path:
    """Write sentences of made-up words, fewer for every further language."""
    draw = random.Random(code)
    words = [code + draw.choice("abcdefgh") * draw.randint(1, 4) for _ in range(20)]
    sentences = [" ".join(draw.choices(words, k=12)) for _ in range(60 - 2 * place)]
    path = folder / f"{code}.txt"
    path.write_text("\n\n".join(sentences), encoding="utf-8")
    return path


@pytest.mark.tlm
def test_every_language_gets_its_rows_and_what_is_said_of_them_agrees(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    paths = {code: write_language(tmp_path, n, code) for n, code in enumerate(CODES)}
    flags = [part for code, path in paths.items() for part in ("--text", f"{code}={path}")]
    flags += ["--pairs", str(files.pairs), "--plugin", "tlm", "--steps", "30", "--quiet"]
    flags += ["--set", "batch.alpha.text=[[0, 1], [0.5, 0.3]]", "--set", "batch.joins.text.el=0.5"]
    flags += ["--set", "batch.weights={text=3, pairs=1}", "--set", "batch.max_epochs=2"]
    flags += ["--set", f"evaluate.pairs=[{str(files.pairs)!r}]"]
    plan = document("plan", files.settings, *flags, "--prepare")
    report = document("train", files.settings, *flags)
    planned = {s["stream"]: {t["stratum"]: t for t in s["strata"]} for s in plan["streams"]}
    assert sorted(planned["text"]) == sorted(CODES)
    for stream, strata in report["strata"].items():
        assert set(strata) == set(planned[stream])
        for name, one in strata.items():
            assert one["planned_rows"] == pytest.approx(
                planned[stream][name]["share"] * 30 * 4, abs=0.01
            )
            assert abs(one["rows"] - one["planned_rows"]) < 5
    assert sum(one["rows"] for of in report["strata"].values() for one in of.values()) == 30 * 4
    assert report["strata"]["pairs"]["en-fr"]["rows"] == 30
    assert (
        sum(t["tokens"] for of in report["strata"].values() for t in of.values())
        == (report["tokens"])
    )
    *_, last = (one for one in read_log(tmp_path / "run") if one["kind"] == "step")
    assert last["taken"] == {
        f"{stream}/{name}": one["rows"]
        for stream, strata in report["strata"].items()
        for name, one in strata.items()
        if one["rows"]
    }
    assert report["probes"]["translation_retrieval"]["with_plugins"] is not None
