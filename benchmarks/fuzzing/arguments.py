"""Readers of settings and of what flags say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from random import Random

from benchmarks.fuzzing.cases import Files, Reader
from benchmarks.fuzzing.rules import Violation, encodes, require
from benchmarks.fuzzing.words import phrase
from ptm_plus.errors import DataError, PtmPlusError, SettingsError
from ptm_plus.settings import RunSettings
from ptm_plus.settings_files import Resolved, dump_toml, resolve
from ptm_plus.sources import parse_source

_TOML = (
    'plugins = ["kg-fusion", "tlm"]\noutput = "runs/größe"\n',
    '[model]\npath = "a/b"\ndropout = 0.1\nconfig = {hidden_size = 64, x = [1, 2.5]}\n',
    "[tokenizer]\nvocabulary = 1_000\n",
    "[data]\ntext = [\"en=a.txt\", 'b.jsonl']\nheld_out = 0.1\nmax_examples = 10\n",
    '[linker]\nambiguity = "skip"\nlower_case = true\n',
    "[train]\nsteps = 3\nlr = 1e-3\nbetas = [0.9, 0.98]\nwarmup = 0\n",
    "[train.objective_weights]\nmlm = 1.5\n",
    "[batch]\nrow_tokens = 64\nweights = {text = 1, pairs = 0.5}\n",
    '[plugin."k-adapter:fac"]\nsize = 2\nwhen = 2024-01-01T00:00:00Z\nat = 07:32:00\n',
    '[plugin.tlm]\nx = """\nlong\n"""\n[[plugin.tlm.many]]\na = inf\n',
    "[[plugin.many.x]]\na = nan\n[[plugin.many.x]]\na = 0xff\n",
)
_SETS = (
    *("train.steps=3", "train.lr = 1e-3", "train.deterministic=true", "data.text=['a','b']"),
    *("batch.alpha={text=0.3}", "model.path=FacebookAI/xlm-roberta-base", "model.path='a=b'"),
    *("model.path=", "model.path=2024-01-01", "plugin.kg-fusion.weight=2", "output=here"),
    *('plugin."k-adapter:fac".size=[1, {a = 2}]', "train=3", "train.stesp=1", "linker.min_length="),
)
_SOURCES = (
    *("{}/a.jsonl", "en={}/a.jsonl", "en-fr={}/*.jsonl", "zh-Hant-pt-BR={}/[ab].jsonl", "{}/**/a*"),
    *(
        "hub:org/name",
        "hub:org/name:config",
        "en=hub:org/name:config:split",
        "~/{}",
        "~nobody/a.txt",
    ),
    *("en=", "=", "hub:", "{}", "{}/none", "en-x-y={}/a.jsonl", "{}/en=b.jsonl", "{}/a.jsonl\n"),
)


def _toml(random: Random) -> Files:
    tables = random.sample(_TOML[1:], random.randint(0, 5))
    head = [_TOML[0]] if random.random() < 0.5 else []
    return {"run.toml": "".join([*head, *tables]).encode()}


def _sets(random: Random) -> Files:
    chosen = [random.choice(_SETS) for _ in range(random.randint(1, 2))]
    if random.random() < 0.2:
        chosen.append(f"model.path={phrase(random)}")
    return {"sets.txt": "\0".join(chosen).encode()}


def _source(random: Random) -> Files:
    argument = random.choice(_SOURCES)
    return {"argument.txt": argument.encode(), "a.jsonl": b"{}", "en=b.jsonl": b"{}"}


def _check_settings(path: Path) -> int:
    try:
        resolved = resolve(path)
    except SettingsError as error:
        require(str(path) in error.message, f"does not name the file: {error.message[:200]}")
        raise
    return _check_resolved(resolved)


def _check_sets(path: Path) -> int:
    # As the command line hands them over: bytes that are not UTF-8 become half characters.
    sets = path.read_bytes().decode("utf-8", "surrogateescape").split("\0")
    return _check_resolved(resolve(sets=sets))


def _check_resolved(resolved: Resolved) -> int:
    text = dump_toml(resolved.settings)
    require(encodes(text), "settings that cannot be written down")
    again = RunSettings.model_validate(tomllib.loads(text))
    # NaN is not equal to itself, and only free tables of plugins may hold it.
    same = again == resolved.settings or "nan" in text
    require(same, "settings that are not the same after writing and reading")
    return len(resolved.origins)


def _check_source(path: Path) -> int:
    argument = path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", "")
    argument = argument.replace("{}", str(path.parent), 1)
    if str(path.parent) not in argument.partition("*")[0] and "*" in argument:
        return 0  # a pattern over the whole disk takes as long as the disk is large
    try:
        spec = parse_source(argument)
        spec.text_language()
        spec.pair_languages()
    except (DataError, SettingsError) as error:
        require(encodes(str(error)), f"a message that cannot be printed: {str(error)[:200]!r}")
        require(len(str(error)) < 3_000 + 2 * len(argument), "a message without end")
        raise SettingsError("refused") from error
    except PtmPlusError as error:
        raise Violation(f"{type(error).__name__}: {error}") from error
    return len(spec.files)


READERS = (
    Reader("settings", _toml, _check_settings, SettingsError),
    Reader("set", _sets, _check_sets, SettingsError),
    Reader("source", _source, _check_source, SettingsError),
)
