"""Building a corpus: planted cases, shards, being killed, and bad input."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove")

from cli_files import document, run
from corpora import (
    alike,
    decompressed,
    near,
    read_rows,
    rows,
    sentence,
    text,
    write_recipe,
    write_rows,
)

pytestmark = pytest.mark.recipes

NORMALISE = {"kind": "normalise"}
PLAIN = (
    "The ferry leaves the harbour twice a day, except on Sundays, when the crew rests. Visitors "
    "who miss it can walk along the old dike to the next village; the path is dry in summer and "
    "muddy in winter. A small shop near the church sells bread, maps and, if the owner is awake, "
    "coffee."
)
EXACT = {"kind": "exact-duplicates"}
NEAR = {"kind": "near-duplicates"}


def built(recipe: Path, output: Path, *flags: str) -> dict[str, Any]:
    made = document("recipe", "build", recipe, "-o", output, "--workers", "1", *flags)
    assert isinstance(made, dict)
    return made


def failed(recipe: Path, output: Path, *flags: str) -> tuple[int, str]:
    done = run("recipe", "build", recipe, "-o", output, "--workers", "1", *flags)
    return done.exit_code, done.output


# ---------------------------------------------------------------------------------------------
# What is dropped


def test_duplicates_are_found_and_look_alikes_are_left(tmp_path: Path) -> None:
    draw = random.Random(7)
    originals = list(rows(200, seed=1))
    planted: dict[str, str] = {}
    extra = []
    for number, one in enumerate(originals[:100]):
        kind, make = (("exact", lambda _, t: t.upper()), ("near", near), ("alike", alike))[
            number % 3
        ]
        planted[f"{kind}-{number}"] = kind
        extra.append({"id": f"{kind}-{number}", "text": make(draw, one["text"])})
    everything = [*originals, *extra]
    draw.shuffle(everything)
    for at in range(4):
        write_rows(tmp_path / f"{at}.jsonl", everything[at::4])
    account = built(write_recipe(tmp_path, NORMALISE, EXACT, NEAR), tmp_path / "corpus")

    kept = {row["id"] for row in read_rows(tmp_path / "corpus")}
    # Of a pair, either may be the one that is kept.
    lost = dict.fromkeys(("exact", "near", "alike"), 0)
    for name, kind in planted.items():
        original = f"d{name.partition('-')[2]}"
        lost[kind] += 2 - len({name, original} & kept)
    wanted = sum(kind != "alike" for kind in planted.values())
    right = lost["exact"] + lost["near"]
    assert lost["exact"] == account["duplicates"]["exact-duplicates"] == 34
    recall, precision = right / wanted, right / (300 - len(kept))
    assert recall >= 0.97
    assert precision == 1.0
    assert lost["alike"] == 0


def test_texts_that_differ_in_numbers_alone_are_not_duplicates(tmp_path: Path) -> None:
    line = "On day {} the patient had {} mg of the drug, a pulse of {} and a count of {} per unit. "
    draw = random.Random(3)
    made = [
        {
            "id": str(n),
            "text": "".join(
                line.format(*(draw.randrange(999) for _ in range(4))) for _ in range(8)
            ),
        }
        for n in range(30)
    ]
    write_rows(tmp_path / "notes.jsonl", made)
    built(write_recipe(tmp_path, EXACT, NEAR), tmp_path / "corpus")
    assert len(read_rows(tmp_path / "corpus")) == 30


def test_a_notice_in_many_documents_stays_once(tmp_path: Path) -> None:
    notice = "All rights are reserved by the publisher of this journal and its heirs."
    made = [{**one, "text": f"Summary\n{one['text']}\n{notice}"} for one in rows(20)]
    write_rows(tmp_path / "a.jsonl", made[:10])
    write_rows(tmp_path / "b.jsonl", made[10:])
    account = built(write_recipe(tmp_path, {"kind": "repeated-lines"}), tmp_path / "corpus")
    texts = [row["text"] for row in read_rows(tmp_path / "corpus")]
    assert sum(notice in one for one in texts) == 1
    assert sum("Summary" in one for one in texts) == 20  # short lines repeat rightly
    assert [len(one.split("\n")) for one in texts].count(3) == 19
    step = account["steps"][1]
    assert (step["kind"], step["changed"]) == ("repeated-lines", 19)


def test_contaminated_documents_go_and_the_account_shows_them(tmp_path: Path) -> None:
    draw = random.Random(5)
    long = " ".join(f"{one}{at}a" for at, one in enumerate(text(draw, 4).split()))
    short = "a heron stood in the shallow green water"
    write_rows(
        tmp_path / "eval" / "task.jsonl",
        [{"question": long, "tokens": short.split(), "label": "yes"}],
    )
    clean = list(rows(20))
    dirty = [
        {"id": "long", "text": f"{text(draw)} {long[:160]} {text(draw)}"},
        {"id": "short", "text": f"{text(draw)}\nAnd {short.upper()}, it said."},
        {"id": "apart", "text": f"{text(draw)} a heron stood in the green shallow water"},
    ]
    write_rows(tmp_path / "a.jsonl", [*clean, *dirty])
    step = {"kind": "decontaminate", "against": ["eval/*.jsonl"]}
    account = built(write_recipe(tmp_path, step), tmp_path / "corpus")
    assert {row["id"] for row in read_rows(tmp_path / "corpus")} == {
        *(one["id"] for one in clean),
        "apart",
    }
    assert account["contaminated"] == 2
    (examples,) = account["steps"][1]["examples"].values()
    assert {one["id"] for one in examples} == {"long", "short"}


def test_filters_say_why_and_masks_count(tmp_path: Path) -> None:
    german = "Der Ausschuss hat den zweiten Bericht geprüft und die Sitzung danach verschoben. " * 3
    good = f"Write to jo.doe@uni.edu or call +44 20 7946 0958 about it. {PLAIN}"
    write_rows(
        tmp_path / "a.jsonl",
        [
            {"id": "good", "text": good},
            {"id": "german", "text": german},
            {"id": "short", "text": "Too short to be of any use."},
            {"id": "again", "text": "The same words again and again and again. " * 30},
            {"id": "empty", "text": "  "},
            {
                "id": "broken",
                "text": "The café\u0000 was  cafÃ© once.\r\n\r\n\r\n\r\n" + PLAIN,
            },
        ],
    )
    steps = (
        NORMALISE,
        {"kind": "language"},
        {"kind": "length", "min_words": 20},
        {"kind": "gopher-repetition"},
        {"kind": "mask"},
    )
    account = built(write_recipe(tmp_path, *steps), tmp_path / "corpus")
    kept = {row["id"]: row for row in read_rows(tmp_path / "corpus")}
    assert set(kept) == {"good", "broken"}
    assert kept["good"]["text"].startswith("Write to <email> or call <phone> about it.")
    assert kept["broken"]["text"].startswith("The café was café once.\n\nT")
    assert kept["good"]["lang"] == "en"
    reasons = {one["kind"]: one["dropped"] for one in account["steps"]}
    assert reasons["read"] == {"empty text": 1}
    assert reasons["language"] == {"language de": 1}
    assert reasons["length"] == {"fewer than 20 words": 1}
    assert sum(reasons["gopher-repetition"].values()) == 1
    assert account["steps"][5]["counts"] == {"masked email": 1, "masked phone": 1}


def test_units_keep_their_mentions_and_metadata(tmp_path: Path) -> None:
    body = "Dr. Ada went to Rome in May.\nThe  city of Rome was warm. She liked Rome."
    marks = [{"start": at, "end": at + 4, "qid": "Q220"} for at in (16, 42, 67)]
    assert all(body[one["start"] : one["end"]] == "Rome" for one in marks)
    write_rows(tmp_path / "a.jsonl", [{"id": "x", "text": body, "year": 1921, "mentions": marks}])
    recipe = write_recipe(
        tmp_path, NORMALISE, {"kind": "units", "unit": "sentence"}, metadata=["year"]
    )
    account = built(recipe, tmp_path / "corpus")
    made = read_rows(tmp_path / "corpus")
    assert [one["text"] for one in made] == [
        "Dr. Ada went to Rome in May.",
        "The city of Rome was warm.",
        "She liked Rome.",
    ]
    assert [one["id"] for one in made] == ["x#0", "x#1", "x#2"]
    for one in made:
        (mark,) = one["mentions"]
        assert one["text"][mark["start"] : mark["end"]] == "Rome"
        assert one["year"] == 1921
    assert account["mentions"] == 3


# ---------------------------------------------------------------------------------------------
# The account


def test_the_account_adds_up_and_its_pages_hold(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "a.jsonl", [*rows(30), *rows(5), {"id": "<b>", "text": "<script>x</script>"}]
    )
    steps = ({"kind": "length", "min_words": 10, "why": "5 < 10 & more"}, EXACT, NEAR)
    recipe, corpus = write_recipe(tmp_path, *steps), tmp_path / "corpus"
    account = built(recipe, corpus)
    made = read_rows(corpus)
    for before, after in zip(account["steps"], account["steps"][1:-1], strict=False):
        assert before["documents"]["out"] == after["documents"]["in"]
        assert before["tokens"]["out"] == after["tokens"]["in"]
        assert after["documents"]["in"] - after["documents"]["out"] == sum(
            after["dropped"].values()
        )
    assert account["documents"] == {"in": 36, "out": 30}
    assert (
        account["documents"]["out"]
        == len(made)
        == sum(one["documents"] for one in account["lengths"])
    )
    assert account["duplicates"] == {"exact-duplicates": 5, "near-duplicates": 0}
    assert account["files"][0]["sha256"]

    page = (corpus / "account.html").read_text(encoding="utf-8")
    assert _well_formed(page)
    assert "&lt;script&gt;x" in page
    assert "<script" not in page
    assert "http" not in page.replace("https://", "http")  # nothing is loaded from elsewhere
    card = (corpus / "README.md").read_text(encoding="utf-8")
    assert "| planted | 30 |" in card
    assert "CC0 1.0" in card
    assert run("config", "show", corpus / "train.toml").exit_code == 0
    assert not (corpus / "work").exists()
    assert built(recipe, corpus) == account  # finished: shown again, not built again


def _well_formed(page: str) -> bool:
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Parser().feed(page)
    return not opened


# ---------------------------------------------------------------------------------------------
# Shards, jobs, and being killed


STEPS = (NORMALISE, {"kind": "repeated-lines"}, EXACT, NEAR, {"kind": "units", "unit": "paragraph"})


def many_files(folder: Path, files: int = 4, each: int = 60) -> Path:
    for number in range(files):
        twice = rows(each // 3, seed=0)
        write_rows(folder / f"{number}.jsonl.gz", [*rows(each, seed=number), *twice])
    return write_recipe(folder, *STEPS, files=["*.jsonl.gz"])


def test_jobs_that_share_the_work_make_the_same_bytes(tmp_path: Path) -> None:
    recipe = many_files(tmp_path)
    built(recipe, tmp_path / "alone")
    waiting = 0
    for _ in range(20):
        jobs = [built(recipe, tmp_path / "shared", "--shard", f"{job}/2") for job in range(2)]
        waiting += not jobs[0].get("done", True)
        if all(one.get("done", True) for one in jobs):
            break
    assert waiting  # job 0 could not go on before job 1 had done its share
    assert decompressed(tmp_path / "shared") == decompressed(tmp_path / "alone")


FAKE_SBATCH = """#!/bin/bash
echo "$@" >> "$SBATCH_LOG"
for word in "$@"; do
  case "$word" in --array=0-*) last="${word#--array=0-}";; esac
done
for SLURM_ARRAY_TASK_ID in $(seq 0 "$last"); do
  export SLURM_ARRAY_TASK_ID
  bash "${!#}" > /dev/null || exit 1
done
wc -l < "$SBATCH_LOG"
"""


def test_slurm_gets_an_array_of_jobs_for_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for sbatch runs the script of each array on the spot."""
    write_rows(tmp_path / "a.jsonl", rows(20))
    write_rows(tmp_path / "b.jsonl", [*rows(20), *rows(5, seed=2)])
    recipe = write_recipe(tmp_path, EXACT)
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(FAKE_SBATCH, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_LOG", str(tmp_path / "log"))
    flags = ("--on", "slurm", "--jobs", "2", "--slurm=--time=1:00:00")
    made = built(recipe, tmp_path / "corpus", *flags)
    calls = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(calls) == made["stages"] == len(made["numbers"]) == 4
    assert all("--array=0-1" in call and "--time=1:00:00" in call for call in calls)
    assert "--dependency=afterok:1 " in calls[1]
    assert len(read_rows(tmp_path / "corpus")) == 25
    assert not list((tmp_path / "corpus").rglob("*.pkl")) + list(tmp_path.rglob("*.pik"))


def test_ray_runs_the_jobs(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    recipe = many_files(tmp_path, files=2, each=20)
    done = run_apart("recipe", "build", recipe, "-o", tmp_path / "ray", "--on", "ray", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    built(recipe, tmp_path / "alone")
    assert decompressed(tmp_path / "ray") == decompressed(tmp_path / "alone")


def run_apart(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ptm_plus", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def test_a_large_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "a.jsonl", rows(50))
    recipe = write_recipe(tmp_path, EXACT)
    monkeypatch.setattr("ptm_plus.recipes.shards.SHARD_BYTES", 20_000)
    built(recipe, tmp_path / "corpus")
    shards = sorted((tmp_path / "corpus" / "data").iterdir())
    assert len(shards) > 1
    assert {row["id"] for row in read_rows(tmp_path / "corpus")} == {f"d{n}" for n in range(50)}


def start(recipe: Path, output: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ptm_plus", "recipe", "build", str(recipe), "-o", str(output)]
    return subprocess.Popen(
        [*command, "--workers", str(workers), "-q"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    recipe = many_files(tmp_path, files=6, each=150)
    built(recipe, tmp_path / "whole")
    output = tmp_path / "killed"
    kills = 0
    for wanted in (1, 4, 9, 14):  # tasks done when it is killed
        process = start(recipe, output, workers=2)
        while process.poll() is None and _done(output) < wanted:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        assert not (output / "account.json").exists() or process.returncode == 0
    assert kills >= 2
    assert _done(output) >= 1
    final = built(recipe, output)
    assert decompressed(output) == decompressed(tmp_path / "whole")
    assert final["documents"]["out"] == len(read_rows(tmp_path / "whole"))
    assert not list(output.rglob("*.part"))


def _done(output: Path) -> int:
    return len(list((output / "work" / "done").glob("*/completions/*")))


# ---------------------------------------------------------------------------------------------
# Bad input


def test_finished_shards_outlive_a_broken_source(tmp_path: Path) -> None:
    recipe = many_files(tmp_path)
    whole = (tmp_path / "3.jsonl.gz").read_bytes()
    cut = tmp_path / "3.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    code, said = failed(recipe, tmp_path / "corpus")
    assert code == 4
    assert "3.jsonl.gz" in said
    assert "cut short" in said
    assert _done(tmp_path / "corpus") == 3
    assert not (tmp_path / "corpus" / "data").exists()
    cut.write_bytes(whole)
    code, said = failed(recipe, tmp_path / "corpus")
    assert code == 4  # what was begun with the broken file is not taken for the whole one
    assert "has changed since the build began" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        ('{"text": "café"}\n'.encode() + b'{"text": "caf\xe9"}\n', "a.jsonl:2: not UTF-8"),
        (b'{"text": "x"}\n{"text": "y"', "a.jsonl:2: broken JSON"),
        (b'{"txet": "x"}\n', "did you mean 'txet'"),
        (b'{"text": 5}\n', "a.jsonl:1: 'text' is 5, not a text"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    code, output = failed(write_recipe(tmp_path, EXACT), tmp_path / "corpus")
    assert code == 4
    assert said in output
    assert "Traceback" not in output


def test_a_line_without_end_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptm_plus.files.LONGEST_LINE", 2**20)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"x" * 2**22)
    code, output = failed(write_recipe(tmp_path, EXACT), tmp_path / "corpus")
    assert code == 4
    assert "a.jsonl:1: a line of more than 1 MiB" in output


def test_a_source_that_vanishes_or_changes_is_named(tmp_path: Path) -> None:
    recipe, corpus = many_files(tmp_path), tmp_path / "corpus"
    built(recipe, corpus, "--shard", "0/2")
    content = (tmp_path / "1.jsonl.gz").read_bytes()
    (tmp_path / "1.jsonl.gz").unlink()
    code, said = failed(recipe, corpus, "--shard", "1/2")
    assert code == 4
    assert "1.jsonl.gz: has vanished since the build began" in said
    write_rows(tmp_path / "1.jsonl.gz", rows(3, seed=99))
    code, said = failed(recipe, corpus, "--shard", "1/2")
    assert code == 4
    assert "1.jsonl.gz: has changed since the build began" in said
    (tmp_path / "1.jsonl.gz").write_bytes(content)
    assert not built(recipe, corpus, "--shard", "1/2")["done"]


def test_a_checksum_in_the_recipe_must_hold(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows(3))
    recipe = write_recipe(tmp_path, EXACT, sha256={"a.jsonl": "0" * 64})
    code, said = failed(recipe, tmp_path / "corpus")
    assert code == 4
    assert "as the recipe says" in said
    assert not (tmp_path / "corpus").exists()


def test_a_full_disk_is_said_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, corpus = many_files(tmp_path), tmp_path / "corpus"

    def full(path: object) -> None:
        if str(path).endswith(".part") and "00002.jsonl" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ptm_plus.recipes.flow.flush", full)
    code, said = failed(recipe, corpus)
    assert code == 5
    assert "the disk is full" in said
    assert _done(corpus) == 2
    assert not list(corpus.rglob("*.part"))
    monkeypatch.undo()
    built(recipe, tmp_path / "whole")
    built(recipe, corpus)
    assert decompressed(corpus) == decompressed(tmp_path / "whole")


def test_another_recipe_does_not_go_on_with_a_build(tmp_path: Path) -> None:
    recipe = many_files(tmp_path)
    built(recipe, tmp_path / "corpus", "--shard", "0/2")
    write_recipe(tmp_path, EXACT, files=["*.jsonl.gz"])
    code, said = failed(recipe, tmp_path / "corpus")
    assert code == 4
    assert "was begun with another recipe" in said


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    recipe = many_files(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, said = failed(recipe, tmp_path / "mine")
    assert code == 2
    assert "holds thesis.txt and no build" in said


def test_rows_are_read_from_every_format(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    made = [sentence(random.Random(n)) for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.table({"text": made}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n\n".join(made), encoding="utf-8")
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{one}"\n' for one in made))
    (tmp_path / "a.tsv").write_text("text\n" + "".join(f"{one}\n" for one in made))
    (tmp_path / "a.lines").write_bytes(gzip.compress("\n".join(made).encode()))
    for suffix, name in (
        ("parquet", "parquet"),
        ("txt", "text"),
        ("csv", "csv"),
        ("tsv", "tsv"),
        ("lines", "lines"),
    ):
        path = tmp_path / f"a.{suffix}"
        if suffix == "lines":
            path = path.rename(tmp_path / "a.lines.gz")
        recipe = write_recipe(tmp_path, files=[path.name], format=name)
        built(recipe, tmp_path / name)
        assert [row["text"] for row in read_rows(tmp_path / name)] == made
        assert json.loads((tmp_path / name / "account.json").read_text())["documents"]["out"] == 3
