"""What is done in which order: a recipe as stages, each a datatrove pipeline over tasks.

Steps that see one document at a time run together. One that compares documents ends a stage: its
signatures are taken of every shard, what is equal is found, and the next stage begins by dropping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from ptm_plus.recipes.blocks import block_of
from ptm_plus.recipes.comparing import (
    IndexEvaluation,
    Uncontaminated,
    dropping_block,
    evaluation_files,
    finding_blocks,
    signature_block,
)
from ptm_plus.recipes.flow import Counted, ReadShard, ReadWork, Report, Timed, Write
from ptm_plus.recipes.recipe import Recipe
from ptm_plus.recipes.shards import Inputs
from ptm_plus.recipes.steps import BARRIERS, AnyStep, Decontaminate

DATA, WORK, TALLIES = "data", "work", "tallies"
"""Folders of an output: finished shards; what lies between the stages; what each task counted."""


@dataclass(frozen=True)
class Work:
    """What a build works on.

    Attributes:
        recipe: what to do.
        inputs: to what.
        data: folder that the recipe's relative names start from.
        output: folder of the corpus.
    """

    recipe: Recipe
    inputs: Inputs
    data: Path
    output: Path

    def folder(self, step: int) -> Path:
        """Return the folder for what lies between the stages of a step."""
        return self.output / WORK / f"{step:02d}"


@dataclass(frozen=True)
class Stage:
    """Some blocks over some tasks.

    Attributes:
        name: what is done; no two stages have one name.
        tasks: how many of them.
        blocks: makes the blocks anew, for one task.
    """

    name: str
    tasks: int
    blocks: Callable[[], list[PipelineStep]]

    def pipeline(self, work: Work) -> list[PipelineStep]:
        """Return the pipeline of a task: the blocks, and the report of what they counted."""
        blocks = self.blocks()
        return [*blocks, Report(self.tallies(work), blocks)]

    def tallies(self, work: Work) -> Path:
        """Return the folder of what its tasks counted."""
        return work.output / WORK / TALLIES / self.slug

    @property
    def slug(self) -> str:
        """The name as a folder has it."""
        return re.sub(r"[^a-z0-9-]+", "-", self.name)


def stages_of(work: Work) -> list[Stage]:
    """Return the stages of a build, in order."""
    stages = list(_indexing(work))
    steps = work.recipe.steps
    barriers = [number for number, step in enumerate(steps) if isinstance(step, BARRIERS)]
    shards = len(work.inputs.shards)
    begin = None
    for end in [*barriers, None]:
        stages.append(Stage(_name(steps, begin, end), shards, _segment(work, begin, end)))
        if end is not None:
            stages += _comparing(work, end)
        begin = end
    return stages


def _indexing(work: Work) -> Iterator[Stage]:
    for number, step in enumerate(work.recipe.steps):
        if isinstance(step, Decontaminate):

            def blocks(number: int = number, step: Decontaminate = step) -> list[PipelineStep]:
                files = evaluation_files(step, work.data)
                return [Counted(number, IndexEvaluation(step, files, work.folder(number)))]

            yield Stage(f"{number}: index evaluation files", 1, blocks)


def _name(steps: tuple[AnyStep, ...], begin: int | None, end: int | None) -> str:
    first = "read" if begin is None else f"{begin}: drop {steps[begin].kind}"
    return f"{first}, on to {'the end' if end is None else steps[end].kind}"


def _segment(work: Work, begin: int | None, end: int | None) -> Callable[[], list[PipelineStep]]:
    """Return what makes the blocks between two steps that compare documents."""

    def blocks() -> list[PipelineStep]:
        steps = work.recipe.steps
        made: list[PipelineStep] = []
        if begin is None:
            made.append(ReadShard(work.recipe, work.inputs, work.data))
        else:
            made.append(ReadWork(work.folder(begin) / DATA, len(steps)))
            block, reason = dropping_block(steps[begin], work.folder(begin))
            made.append(Counted(begin, block, reason))
        for number in range(0 if begin is None else begin + 1, len(steps) if end is None else end):
            made += _counted(work, number)
        final = end is None
        folder = work.output / DATA if end is None else work.folder(end) / DATA
        return [*made, Write(folder, len(steps), final=final)]

    return blocks


def _counted(work: Work, number: int) -> list[PipelineStep]:
    step = work.recipe.steps[number]
    block = (
        Uncontaminated(step, work.folder(number))
        if isinstance(step, Decontaminate)
        else block_of(step, work.recipe.languages)
    )
    return [] if block is None else [Counted(number, block)]


def _comparing(work: Work, number: int) -> Iterator[Stage]:
    """Yield the stages between what a comparing step is given and what it drops."""
    step, folder = work.recipe.steps[number], work.folder(number)

    def signatures() -> list[PipelineStep]:
        reader = ReadWork(folder / DATA, len(work.recipe.steps))
        return [reader, Timed(number, signature_block(step, folder))]

    yield Stage(f"{number}: signatures for {step.kind}", len(work.inputs.shards), signatures)
    for part, (tasks, _) in enumerate(finding_blocks(step, folder)):

        def finding(part: int = part) -> list[PipelineStep]:
            return [Timed(number, finding_blocks(step, folder)[part][1])]

        yield Stage(f"{number}: find {step.kind} {part + 1}", tasks, finding)
