"""Settings: layers, origins, errors, and the resolved file."""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ptm_plus.errors import SettingsError
from ptm_plus.settings import RunSettings, Section
from ptm_plus.settings_checks import dotted, validated
from ptm_plus.settings_files import (
    dump_toml,
    json_schema,
    parse_key,
    parse_set,
    resolve,
)


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(*arguments: Any, **named: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        resolve(*arguments, **named)
    assert caught.value.exit_code == 2
    return caught.value


# Layers and origins


def test_nothing_given_is_the_defaults() -> None:
    resolved = resolve()
    assert resolved.settings == RunSettings()
    assert set(resolved.origins.values()) == {"default"}
    assert resolved.origins["train.steps"] == "default"


def test_each_layer_wins_over_the_one_below(tmp_path: Path) -> None:
    path = file(tmp_path, "plugins = ['tlm']\n[train]\nsteps = 1\nlr = 0.1\nseed = 1\n")
    flags = {"train.lr": 0.2, "train.seed": 2, "train.warmup": None, "output": Path("here")}
    resolved = resolve(path, flags, ["train.seed=3"])
    train = resolved.settings.train
    assert (train.steps, train.lr, train.seed, train.warmup) == (1, 0.2, 3, 0.06)
    assert resolved.settings.output == Path("here")
    assert {key: value for key, value in resolved.origins.items() if value != "default"} == {
        "plugins": str(path),
        "train.steps": str(path),
        "train.lr": "command line",
        "train.seed": "--set",
        "output": "command line",
    }


def test_tables_are_merged_and_lists_replaced(tmp_path: Path) -> None:
    path = file(
        tmp_path, "plugins = ['a', 'b']\n[plugin.kg-fusion]\nweight = 1\nsize = 3\n[plugin.tlm]\n"
    )
    resolved = resolve(path, {"plugins": ["c"]}, ["plugin.kg-fusion.weight=2"])
    assert resolved.settings.plugins == ("c",)
    assert resolved.settings.plugin == {"kg-fusion": {"weight": 2, "size": 3}, "tlm": {}}
    assert resolved.origins["plugin.kg-fusion.weight"] == "--set"
    assert resolved.origins["plugin.kg-fusion.size"] == str(path)


# --set


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("train.steps=3", {"train": {"steps": 3}}),
        ("train.lr = 1e-3", {"train": {"lr": 1e-3}}),
        ("train.deterministic=true", {"train": {"deterministic": True}}),
        ("data.text=['a','b']", {"data": {"text": ["a", "b"]}}),
        ("batch.alpha={text=0.3}", {"batch": {"alpha": {"text": 0.3}}}),
        (
            "model.path=FacebookAI/xlm-roberta-base",
            {"model": {"path": "FacebookAI/xlm-roberta-base"}},
        ),
        ("model.path='a=b'", {"model": {"path": "a=b"}}),
        ("model.path=a=b", {"model": {"path": "a=b"}}),
        ("model.path=", {"model": {"path": ""}}),
        ("model.path=2024-01-01", {"model": {"path": "2024-01-01"}}),
        ("model.path=1\nx=2", {"model": {"path": "1\nx=2"}}),
        ("plugin.kg-fusion.weight=2", {"plugin": {"kg-fusion": {"weight": 2}}}),
        ('plugin."k-adapter:fac".size=2', {"plugin": {"k-adapter:fac": {"size": 2}}}),
    ],
)
def test_set_reads_toml_values_and_falls_back_to_strings(text: str, table: Any) -> None:
    assert parse_set(text) == table


@pytest.mark.parametrize(
    "text", ["train.steps", "=3", "train..steps=3", "plugin.a:b.x=1", "a b=1", "a#b=1", "a\nb=1"]
)
def test_set_that_cannot_be_read(text: str) -> None:
    assert refused(sets=[text]).hint


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_dotted_keys_are_read_back(parts: list[str]) -> None:
    assert parse_key(dotted(parts)) == parts


# Errors


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.stesp", "train.steps"),
        ("steps", "train.steps"),
        ("batch.max_length", "prepare.max_length"),
        ("modell", "model"),
        ("tokenizer.paht", "tokenizer.path"),
        ("linker.ambiguty", "linker.ambiguity"),
    ],
)
def test_unknown_keys_have_the_nearest_name(key: str, nearest: str) -> None:
    error = refused(sets=[f"{key}=1"])
    assert error.message == f"unknown key {key!r} (--set); did you mean {nearest!r}?"


def test_unknown_keys_name_their_layer_and_section(tmp_path: Path) -> None:
    path = file(tmp_path, "[tokenizer]\nzzzzzzzz = 1\n")
    error = refused(path)
    assert error.message == f"unknown key 'tokenizer.zzzzzzzz' ({path})"
    assert error.hint == "keys of tokenizer: path, vocabulary"


def test_every_wrong_value_has_a_line_with_key_value_origin_and_expectation(tmp_path: Path) -> None:
    path = file(tmp_path, "[train]\nsteps = 0\n[linker]\nambiguity = 'all'\n")
    error = refused(path, {}, ["train.lr=fast"])
    assert error.message.splitlines() == [
        f"linker.ambiguity: found 'all' ({path}), expected 'skip', 'most_connected' or 'first'",
        f"train.steps: found 0 ({path}), expected greater than or equal to 1",
        "train.lr: found 'fast' (--set), expected a valid number, "
        "unable to parse string as a number",
    ]


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("data.text=corpus.txt", "data.text: found 'corpus.txt'", "write a list: data.text=['…']"),
        ("model.path=3", "model.path: found 3", "put the value in quotes: model.path='…'"),
        ("train=3", "train: found 3", ""),
        ("plugin.tlm=3", "plugin.tlm: found 3", ""),
        ("batch.alpha.text=x", "batch.alpha.text: found 'x'", ""),
        ("train.betas=[0.9,'x']", "train.betas[1]: found 'x'", ""),
    ],
)
def test_wrong_shapes_say_what_to_write(text: str, key: str, hint: str) -> None:
    error = refused(sets=[text])
    assert error.message.startswith(key)
    assert error.hint == hint


@pytest.mark.parametrize(
    ("text", "alpha"),
    [
        ("batch.alpha.text=0.3", 0.3),
        ("batch.alpha.text=1", 1.0),
        ("batch.alpha.text=[[0, 0.7], [0.5, 0.3]]", ((0.0, 0.7), (0.5, 0.3))),
    ],
)
def test_a_course_is_a_number_or_pairs(tmp_path: Path, text: str, alpha: Any) -> None:
    resolved = resolve(sets=[text]).settings
    assert resolved.batch.alpha == {"text": alpha}
    assert resolve(file(tmp_path, dump_toml(resolved))).settings == resolved


@pytest.mark.parametrize(
    "value",
    [
        *("true", "-1", "nan", "[]", "[0.7, 0.5]", "[[0.1, 0.7]]", "[[0, 0.7], [1, 0.3]]"),
        *("[[0, 0.7], [0.5, 0.5], [0.5, 0.3]]", "[[0, 0.7], [0.5, -1]]", "[[0, 0.7, 1]]"),
    ],
)
def test_what_is_no_course_is_refused_in_one_line(value: str) -> None:
    error = refused(sets=[f"batch.alpha.text={value}"])
    assert "(--set), expected a number from 0 on, or [share of the run, number]" in error.message
    assert "\n" not in error.message


def test_weights_and_joins_have_a_range() -> None:
    assert "greater than or equal to 0" in refused(sets=["batch.weights.text=-1"]).message
    assert "less than 1" in refused(sets=["batch.joins.text.sw=1"]).message


def test_syntax_errors_have_file_and_line(tmp_path: Path) -> None:
    path = file(tmp_path, "[train]\nsteps = 1\nlr = fast\n")
    assert refused(path).message == f"{path}:3: Invalid value (column 6)"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.toml").message
    assert "cannot be read" in refused(tmp_path).message
    path = file(tmp_path, b"[train]\n# caf\xe9\n")
    assert refused(path).message == f"{path}:2: not UTF-8"


class Strict(Section):
    size: int
    limit: float = 1.0


class Lenient(BaseModel):
    size: int = 1
    inner: Strict | None = None


def test_a_plugins_settings_are_checked_in_the_same_words() -> None:
    parts = ("plugin", "k:a")
    with pytest.raises(SettingsError, match=r'^plugin\."k:a"\.size: missing'):
        validated(Strict, {}, parts)
    with pytest.raises(SettingsError, match=r"unknown key .*sise.*; did you mean .*size"):
        validated(Strict, {"sise": 1}, parts)
    assert validated(Strict, {"size": "3"}, parts) == Strict(size=3)


def test_a_model_that_would_ignore_unknown_keys_may_not() -> None:
    with pytest.raises(SettingsError, match="unknown key 'sizes'; did you mean 'size'"):
        validated(Lenient, {"sizes": 1})
    with pytest.raises(SettingsError, match=r"inner\.other: found 1"):
        validated(Lenient, {"inner": {"size": 1, "other": 1}})


# The resolved file


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (
    texts
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.dates().filter(lambda day: day.year >= 1000)
    | st.datetimes(
        min_value=datetime.datetime(1000, 1, 1), timezones=st.none() | st.just(datetime.UTC)
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(texts, st.dictionaries(texts, values, max_size=3), max_size=3),
    st.lists(texts, max_size=3),
    st.floats(1e-9, 1e9),
)
def test_the_resolved_file_resolves_to_the_same_settings(
    plugin: dict[str, dict[str, Any]], names: list[str], lr: float
) -> None:
    settings = RunSettings.model_validate(
        {"plugins": names, "plugin": plugin, "train": {"lr": lr}, "output": "runs/größe"}
    )
    assert RunSettings.model_validate(tomllib.loads(dump_toml(settings))) == settings


def test_the_resolved_file_is_read_by_resolve(tmp_path: Path) -> None:
    settings = resolve(
        sets=["train.lr=0.25", 'plugin."a:b".x=inf', "data.text=['ä\"\\n']"]
    ).settings
    path = file(tmp_path, dump_toml(settings))
    resolved = resolve(path)
    assert resolved.settings == settings
    assert math.isinf(resolved.settings.plugin["a:b"]["x"])
    # An empty table leaves no line of its own in the file.
    assert {key for key, origin in resolved.origins.items() if origin == "default"} <= {
        "model.config",
        "batch.weights",
        "batch.alpha",
        "train.objective_weights",
    }


def test_the_schema_is_json_and_knows_every_section() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == set(RunSettings.model_fields)
    assert schema["additionalProperties"] is False


# What fuzzing found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugin.x.y = " + "[" * 100_000, "Nested too deeply"),
        ("plugin.x.y = " + "9" * 5000, "Exceeds the limit"),
        ("plugin.x.y = 0x" + "f" * 5000, r"plugin\.x\.y: found a int .* more than 64 bits"),
        ("plugin." + ".".join("a" * 2000) + " = 1", "nested too deeply"),
        ("plugin.x.y = " + "[" * 40 + "]" * 40, "nested too deeply"),
        ('output = "a\\u0000b"', "output: found .* a text with a NUL"),
        ('[plugin."a\\u0000"]\nx = 1', "a text with a NUL"),
    ],
)
def test_values_beyond_what_can_be_written_again(tmp_path: Path, text: str, message: str) -> None:
    path = file(tmp_path, text)
    error = refused(path)
    assert str(path) in error.message
    assert re.search(message, error.message)
    assert len(str(error)) < 1000


def test_bytes_of_the_command_line_that_are_not_utf8_are_refused() -> None:
    assert "not UTF-8" in refused(sets=["output=caf\udce9"]).message
    for text in ("output\udce9", "\udce9=1", 'plugin."\udce9".x=1'):
        refused(sets=[text]).message.encode()


def test_a_comment_or_a_second_line_is_no_key() -> None:
    for text in ("#", "a # b", "[x]\ny", "[[x]]\ny", "a=1\nb"):
        with pytest.raises(SettingsError, match="is not a dotted key"):
            parse_key(text)


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = file(tmp_path, b"\xef\xbb\xbf[train]\nsteps = 7\n")
    assert resolve(path).settings.train.steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.steps=true", "train.steps: found True (--set): it has to be a number"),
        ("train.lr=true", "train.lr: found True (--set): it has to be a number"),
        ("train.lr=inf", "train.lr: found inf (--set), expected a finite number"),
        ("train.weight_decay=nan", "train.weight_decay: found nan (--set), expected a finite"),
        ("train.betas=[0.9,'x']", "train.betas[1]: found 'x' (--set), expected"),
        ("batch.alpha={a={b=1}}", "batch.alpha.a: found {'b': 1} (--set), expected"),
    ],
)
def test_every_message_has_the_origin(text: str, message: str) -> None:
    assert refused(sets=[text]).message.startswith(message)


def test_a_cooldown_longer_than_what_warm_up_leaves_is_refused_for_wsd_alone() -> None:
    wsd = ["train.decay=wsd", "train.warmup=0.5"]
    error = refused(sets=[*wsd, "train.cooldown=0.6"])
    assert error.message == (
        "train.cooldown: found 0.6 (--set): with train.warmup = 0.5 it is more than the run; both "
        "are shares of it"
    )
    assert "cooldown: found 0.2: with" in refused(sets=[wsd[0], "train.warmup=0.9"]).message
    assert resolve(None, {}, [*wsd, "train.cooldown=0.5"]).settings.train.cooldown == 0.5
    assert resolve(None, {}, ["train.warmup=1"]).settings.train.decay == "linear"


def test_messages_are_short_whatever_was_given() -> None:
    wrong = "[" + ",".join("1" for _ in range(500)) + "]"
    assert "and 490 more" in refused(sets=[f"data.text={wrong}"]).message
    for text in (f"{'x' * 9000}=1", f"train.lr={'x' * 9000}", "x" * 9000, f"a {'x' * 9000}=1"):
        assert len(str(refused(sets=[text]))) < 1000
