"""From a corpus to a model: the vocabulary that the recipe decides on, the run, the card."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove")

from cli_files import document, run
from corpora import rows, write_recipe, write_rows
from small_tokenizers import small_tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

pytestmark = [pytest.mark.recipes, pytest.mark.domain]


def corpus_of(folder: Path, *flags: str, **tables: Any) -> Path:
    """Build a corpus of sixty documents."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "a.jsonl", rows(60))
    recipe = write_recipe(folder, {"kind": "exact-duplicates"})
    more = "".join(
        f"\n[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
    recipe.write_text(recipe.read_text(encoding="utf-8") + more, encoding="utf-8")
    document("recipe", "build", recipe, "-o", folder / "corpus", "--workers", "1", *flags)
    return folder / "corpus"


def settings_in(corpus: Path) -> dict[str, Any]:
    return tomllib.loads((corpus / "train.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tokenizer = small_tokenizer("bert")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_general_text_makes_the_run_one_with_replay_and_a_guard(tmp_path: Path) -> None:
    (tmp_path / "beside.txt").write_text("Plain words.\n", encoding="utf-8")
    mix = {"general": ["en=beside.txt"], "replay": 0.25, "margin": 0.2, "guard": "slow"}
    flags = ("--general", f"en={tmp_path / 'more.jsonl'}")
    corpus = corpus_of(tmp_path, *flags, mix=mix, training={"steps": 200})
    given = settings_in(corpus)
    assert given["plugins"] == ["domain"]
    assert given["plugin"]["domain"] == {
        "general": [f"en={tmp_path / 'beside.txt'}", f"en={tmp_path / 'more.jsonl'}"],
        "replay": 0.25,
        "guard": {"action": "slow", "margin": 0.2},
    }
    assert given["train"]["evaluate_every"] == given["train"]["checkpoint_every"] == 10
    assert run("config", "show", corpus / "train.toml").exit_code == 0


def test_without_general_text_the_run_has_no_plugin(tmp_path: Path) -> None:
    given = settings_in(corpus_of(tmp_path, mix={"replay": 0.25}))
    assert "plugins" not in given
    assert "evaluate_every" not in given["train"]


def test_keeping_the_vocabulary_names_the_model(tmp_path: Path, base: Path) -> None:
    corpus = corpus_of(tmp_path)
    found = document("recipe", "vocabulary", corpus, "--model", base)
    assert found["decision"] == "keep"
    assert settings_in(corpus)["model"] == {"path": str(base)}
    document("recipe", "vocabulary", corpus, "--model", "org/model")
    assert settings_in(corpus)["model"] == {"path": "org/model"}


def test_extending_writes_a_model_into_the_corpus(tmp_path: Path, base: Path) -> None:
    corpus = corpus_of(tmp_path, vocabulary={"decision": "extend", "entries": 30, "why": "Words."})
    settings = corpus / "train.toml"
    settings.write_text(f"{settings.read_text(encoding='utf-8')}\n[evaluate]\nsequences = 7\n")
    found = document("recipe", "vocabulary", corpus, "--model", base)
    assert (found["decision"], found["why"]) == ("extend", "Words.")
    model = AutoModelForMaskedLM.from_pretrained(corpus / "model")
    old, new = (AutoTokenizer.from_pretrained(one) for one in (base, corpus / "model"))
    assert len(new) == len(old) + 30 == model.config.vocab_size
    assert settings_in(corpus)["model"] == {"path": str(corpus / "model")}
    assert settings_in(corpus)["evaluate"] == {"sequences": 7}  # what somebody wrote there stays
    again = run("recipe", "vocabulary", corpus, "--model", base)
    assert again.exit_code == 2
    assert "the vocabulary is settled already" in again.output


def test_a_vocabulary_of_its_own_is_trained_on_the_corpus(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, vocabulary={"decision": "train", "entries": 150})
    refused = run("recipe", "vocabulary", corpus, "--model", "bert")
    assert refused.exit_code == 2
    assert "needs --family" in refused.output
    found = document("recipe", "vocabulary", corpus, "--family", "bert")
    assert found["trained"]["vocabulary"] == 150
    assert len(AutoTokenizer.from_pretrained(corpus / "tokenizer")) == 150
    given = settings_in(corpus)
    assert given["model"] == {"family": "bert"}
    assert given["tokenizer"] == {"path": str(corpus / "tokenizer")}


@pytest.mark.parametrize("decision", ["keep", "extend"])
def test_a_decision_without_a_model_is_refused(tmp_path: Path, decision: str) -> None:
    corpus = corpus_of(tmp_path, vocabulary={"decision": decision})
    before = (corpus / "train.toml").read_bytes()
    refused = run("recipe", "vocabulary", corpus)
    assert refused.exit_code == 2
    assert "needs --model" in refused.output
    assert (corpus / "train.toml").read_bytes() == before


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    refused = run("recipe", "vocabulary", tmp_path, "--model", "x/y")
    assert refused.exit_code == 4
    assert "no corpus was finished here" in refused.output


def test_from_raw_files_to_a_model_whose_card_has_the_account(tmp_path: Path, base: Path) -> None:
    general = write_rows(tmp_path / "other" / "general.jsonl", rows(40, seed=5))
    corpus = corpus_of(
        tmp_path,
        "--general",
        f"en={general}",
        mix={"replay": 0.2},
        vocabulary={"decision": "extend", "entries": 20},
        training={"steps": 20, "lr": 1e-3, "max_length": 64},
    )
    document("recipe", "vocabulary", corpus, "--model", base)
    sizes = ("batch.row_tokens=64", "batch.rows=2", "prepare.workers=1", "data.held_out=0.2")
    sets = [word for one in sizes for word in ("--set", one)]
    cache = ("--set", f"prepare.cache={tmp_path / 'cache'}")
    report = document(
        "train", corpus / "train.toml", "-o", tmp_path / "run", "--device", "cpu", *sets, *cache
    )
    assert {"domain", "general", "domain_change", "general_change"} == set(
        report["evaluation"]["domain"]
    )
    document("export", tmp_path / "run", "--to", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    account = json.loads((corpus / "account.json").read_text(encoding="utf-8"))
    assert f"- text: {account['title']} (recipe `{account['recipe']}`): 60 of 60 documents" in card
    assert account["sources"][0]["licence"] in card
    assert "- domain.general: `general.jsonl` (en)" in card
    assert "before-and-after.json: loss on held-out text at step 20" in card
    assert str(tmp_path) not in card
