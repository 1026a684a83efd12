"""Builds the corpus of a recipe: whole shards only, and taken up again where it was broken off."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from ptm_plus import __version__
from ptm_plus.errors import DataError, EnvironmentProblem, SettingsError
from ptm_plus.files import read_json, write_whole
from ptm_plus.progress import Watch
from ptm_plus.recipes.account import account_of
from ptm_plus.recipes.account_page import account_page
from ptm_plus.recipes.data_card import data_card
from ptm_plus.recipes.execution import crew, executor_of, quieten
from ptm_plus.recipes.finding import FoundRecipe
from ptm_plus.recipes.flow import write_json
from ptm_plus.recipes.recipe import ACCOUNT, RECIPE, Recipe
from ptm_plus.recipes.shards import Inputs, SourceFile, check_unchanged, find_inputs
from ptm_plus.recipes.stages import WORK, Work, stages_of
from ptm_plus.recipes.training import TRAINING, training_settings

BUILD, PAGE, CARD = "build.json", "account.html", "README.md"


@dataclass(frozen=True)
class Request:
    """What to build, and where.

    Attributes:
        output: folder of the corpus.
        data: folder that relative names in the recipe start from.
        sample: take the samples in the place of the sources.
        workers: processes; 0 takes the number of cores.
        against: evaluation files for the recipe's decontamination, beside those that it names.
        general: text to replay, as after ``--text``, beside what the recipe names.
        shard: ``(i, n)``: do what falls to the i-th (from 0) of n jobs; ``None`` for all.
    """

    output: Path
    data: Path
    sample: bool = False
    workers: int = 0
    against: tuple[str, ...] = ()
    general: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        account: of the whole corpus; ``None`` while other jobs have work to do.
        stage: number of the stage that others have to finish.
        stages: how many there are.
    """

    account: dict[str, Any] | None
    stage: int
    stages: int


def build(found: FoundRecipe, request: Request, watch: Watch) -> Outcome:
    """Build a corpus, or what falls to one of several jobs; go on where an earlier call stopped.

    The same recipe and sources give the same decompressed bytes, whatever the number of workers
    and however often it was killed.

    Raises:
        SettingsError: the recipe is wrong, or the output holds something else.
        DataError: a source is missing, broken, or not what it was when the build began.
        EnvironmentProblem: the disk is full, a process died, or another build is at it.
    """
    quieten()
    recipe = found.read().with_evaluation(request.against)
    data = found.samples if request.sample else request.data
    with crew(request.workers, watch) as workers, _locked(request):
        work = Work(recipe, _inputs(found, recipe, request, watch), data, request.output)
        if (request.output / ACCOUNT).exists():
            return Outcome(read_json(request.output / ACCOUNT), 0, 0)
        stages = stages_of(work)
        for number, stage in enumerate(stages):
            ranks = executor_of(work, stage).get_incomplete_ranks(skip_completed=True)
            mine = [rank for rank in ranks if _falls_to(request.shard, rank)]
            if ranks and (request.output / ACCOUNT).exists():
                break  # another job has finished meanwhile, and cleared what was done away
            if mine:
                workers.run(work, number, stage, mine)
            if len(mine) < len(ranks):
                return Outcome(None, number + 1, len(stages))
        with FileLock(request.output / ".lock-account"):
            if not (request.output / ACCOUNT).exists():
                account = account_of(work, stages, sampled=request.sample)
                _finish(work, recipe.with_general(request.general, data), account)
    return Outcome(read_json(request.output / ACCOUNT), len(stages), len(stages))


def count_stages(found: FoundRecipe, request: Request, watch: Watch) -> int:
    """Begin a build, without doing any of it, and return how many stages it has.

    Raises:
        SettingsError: the recipe is wrong, or the output holds something else.
        DataError: a source is missing, or not what it was when the build began.
        EnvironmentProblem: another build is at it.
    """
    recipe = found.read().with_evaluation(request.against)
    data = found.samples if request.sample else request.data
    with _locked(request):
        inputs = _inputs(found, recipe, request, watch)
        return len(stages_of(Work(recipe, inputs, data, request.output)))


def _falls_to(shard: tuple[int, int] | None, rank: int) -> bool:
    return shard is None or rank % shard[1] == shard[0]


def _inputs(found: FoundRecipe, recipe: Recipe, request: Request, watch: Watch) -> Inputs:
    """Find the inputs, and check that they and the recipe are those that the build began with."""
    output = request.output
    record = output / BUILD
    before = read_json(record) if record.exists() else None
    if before is None and output.exists():
        others = [one.name for one in output.iterdir() if not one.name.startswith(".lock")]
        if set(others) - {"downloads"}:
            raise SettingsError(
                f"--output {output}: holds {sorted(others)[0]} and no build",
                "name a new or an empty folder",
            )
    identity = _identity(recipe, sampled=request.sample)
    known: tuple[SourceFile, ...] = ()
    if before is not None:
        for name, value in identity.items():
            if before.get(name) != value:
                raise DataError(
                    f"was begun with another {name.replace('_', ' ')}",
                    "build into a new --output, or remove this one to start anew",
                    path=output,
                )
        known = tuple(SourceFile(**one) for one in before["files"])
    samples = found.samples if request.sample else None
    inputs = find_inputs(recipe, request.data, samples, output / "downloads", known, watch)
    if before is None:
        write_json(record, identity | inputs.to_json())
        return inputs
    check_unchanged(inputs.files, known)
    return Inputs.of(known)


def _identity(recipe: Recipe, *, sampled: bool) -> dict[str, Any]:
    """Return what the rows depend on beside the sources."""
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    return {
        "recipe": hashlib.sha256(text.encode()).hexdigest(),
        "choice_of_samples": sampled,
        "version_of_datatrove": metadata.version("datatrove"),
        "version_of_ptm_plus": __version__,
    }


def _finish(work: Work, recipe: Recipe, account: dict[str, Any]) -> None:
    """Write what is written once; the account, last, says that all is there."""
    output = work.output
    write_whole(output / RECIPE, tomli_w.dumps(recipe.model_dump(mode="json")))
    write_whole(output / TRAINING, tomli_w.dumps(training_settings(recipe, output)))
    write_whole(output / CARD, data_card(recipe, account))
    write_whole(output / PAGE, account_page(recipe, account))
    write_json(output / ACCOUNT, account)
    shutil.rmtree(output / WORK, ignore_errors=True)


@contextmanager
def _locked(request: Request) -> Iterator[None]:
    """Keep a second build out of the same folder, or a second job out of the same share."""
    existed = request.output.exists()
    share = "" if request.shard is None else "-{}-of-{}".format(*request.shard)
    request.output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(request.output / f".lock{share}")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout as error:
        raise EnvironmentProblem(
            f"{request.output}: another build is at it", "wait for it, or end it first"
        ) from error
    except (DataError, SettingsError):
        if not existed and not (request.output / BUILD).exists():
            shutil.rmtree(request.output, ignore_errors=True)
        raise
