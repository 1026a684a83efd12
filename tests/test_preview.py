"""``preview``: the masked sequences are those of training, and can be read without colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import NAMES, Files, document, run, write_files

from ptm_plus.cli.preview_text import preview_text, sequence_text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("preview"))


def token(text: str, **others: Any) -> dict[str, Any]:
    values = {"special": False, "glued": False, "kind": None, "replaced": None, "input": "x"}
    return {"text": text, **values, **others}


def test_text_is_readable_without_colour() -> None:
    masked = {"kind": "word", "replaced": "mask"}
    sequence = {
        "tokens": [
            token("[CLS]", special=True),
            token("riv", **masked),
            token("er", glued=True, **masked),
            token("of", kind="word", replaced="random", input="tree"),
            token("New", kind="entity", replaced="mask"),
            token("York", kind="entity", replaced="keep"),
            token("."),
        ],
        "mentions": [
            {"kind": "entity", "id": "Q60", "start": 4, "end": 6, "treatment": "mask"},
        ],
    }
    shown = sequence_text(sequence, {"word": "yellow", "entity": "cyan"})
    assert shown.plain == "[CLS] ⟦river⟧ ⟦of→tree⟧ {⟦entity New⟧ ⟦entity York=⟧}(Q60 mask) ."
    document = {"epoch": 0, "mask_rate": 0.15, "streams": {"text": {"sequences": []}}}
    assert "masked" in preview_text(document).plain


def test_shown_tokens_are_the_text(files: Files) -> None:
    shown = document("preview", files.settings, "--count", 30)
    sequences = shown["streams"]["text"]["sequences"]
    assert len(sequences) == 30
    for sequence in sequences:
        words = [token for token in sequence["tokens"] if not token["special"]]
        text = "".join(("" if t["glued"] else " ") + t["text"] for t in words).strip()
        assert text in files.sentences
        assert all(t["kind"] is None for t in sequence["tokens"] if t["special"])


def test_masks_are_those_of_training(files: Files) -> None:
    from ptm_plus.cli.preview import mask_collator
    from ptm_plus.data import Row
    from ptm_plus.prepared import prepare
    from ptm_plus.progress import Silent
    from ptm_plus.settings_files import resolve

    prepared = prepare(resolve(files.settings).settings, Silent())
    collator = mask_collator(prepared)
    shown = document("preview", files.settings, "--count", 8, "--epoch", 1)
    for sequence in shown["streams"]["text"]["sequences"]:
        numbers = np.array([sequence["number"], (sequence["number"] + 1) % 100])
        view = collator.view([Row("text", "en", 1, numbers)])
        plan = collator.masks(view, 0.15)
        own = view.sequence == np.flatnonzero(view.numbers == sequence["number"])[0]
        assert [t["input_id"] for t in sequence["tokens"]] == plan.ids[own].tolist()
        assert [t["kind"] is not None for t in sequence["tokens"]] == plan.predicted[own].tolist()


def test_an_unknown_stream_is_refused(files: Files) -> None:
    result = run("preview", files.settings, "--stream", "txt")
    assert result.exit_code == 2
    assert "did you mean 'text'" in result.stderr


@pytest.mark.kg_fusion
@pytest.mark.tlm
def test_mentions_carry_their_entities(files: Files, tmp_path: Path) -> None:
    flags = ["--pairs", files.pairs, "--kg", files.kg, "--labels", files.labels]
    flags += ["--plugin", "kg-fusion", "--plugin", "tlm"]
    shown = document("preview", files.settings, *flags, "--count", 20)
    assert set(shown["streams"]) == {"text", "pairs"}
    mentions = 0
    for sequence in shown["streams"]["text"]["sequences"]:
        for mention in sequence["mentions"]:
            pieces = sequence["tokens"][mention["start"] : mention["end"]]
            assert "".join(piece["text"] for piece in pieces) == NAMES[mention["id"]]
            assert mention["treatment"] in ("keep", "mask", "random")
            mentions += 1
    assert mentions > 20
