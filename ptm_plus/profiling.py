"""Where the time of a step goes: by stage of the step, part of the encoder, plugin and objective.

Nothing here runs unless it is asked for: modules get hooks, and functions are wrapped in named
ranges, for the profiled steps only. What a backward pass does is booked on the range in which its
forward operation ran, by the sequence numbers that autograd gives both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from ptm_plus.components import Feature, Objective
from ptm_plus.compose import C, Contribution
from ptm_plus.step import Root

if TYPE_CHECKING:
    from ptm_plus.run import Run
    from ptm_plus.train import Trainer

WARM_UP, STEPS = 3, 10
TRACE = "trace.json.gz"

_PREFIX = "ptm-plus: "
_STEP = "step"
_EMBEDDINGS = "embeddings"
_BACKWARD = "autograd::engine::evaluate_function: "


@dataclass
class Spent:
    """Time of a range, per step, what ranges inside it spend left out.

    Attributes:
        forward: milliseconds of the host in the range itself.
        backward: milliseconds of the host in the backward of what ran there.
        device: milliseconds of the device for both.
    """

    forward: float = 0.0
    backward: float = 0.0
    device: float = 0.0


def profiled(trainer: Trainer, folder: Path, steps: int = STEPS) -> dict[str, Any]:
    """Take some steps and return where their time went.

    Args:
        trainer: a trainer; it is some steps further afterwards.
        folder: gets the trace, for chrome://tracing or Perfetto.
        steps: how many steps are measured, after some that are not.

    Returns:
        ``steps``, ``tokens_per_second``, ``milliseconds`` of a step, ``ranges`` (per step, the
        longest first) and ``trace``, the path of the file.
    """
    for _ in range(WARM_UP):
        take_step(trainer)
    trainer.settle()
    cuda = trainer.run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    before = trainer.progress.tokens, trainer.progress.seconds
    with ranges_of(trainer), profile(activities=activities) as profiler:
        for _ in range(steps):
            with record_function(_PREFIX + _STEP):
                take_step(trainer)
        trainer.settle()
    folder.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(folder / TRACE))
    tokens, seconds = trainer.progress.tokens - before[0], trainer.progress.seconds - before[1]
    spent = booked(profiler.events())
    return {
        "steps": steps,
        "tokens_per_second": tokens / seconds,
        "milliseconds": 1000 * seconds / steps,
        "ranges": [
            {
                "range": name,
                "forward": one.forward / steps,
                "backward": one.backward / steps,
                "device": one.device / steps,
            }
            for name, one in sorted(
                spent.items(), key=lambda pair: -(pair[1].forward + pair[1].backward)
            )
        ],
        "trace": str(folder / TRACE),
    }


def take_step(trainer: Trainer) -> None:
    """Take the next step; the last one again in a run that has too few."""
    last = trainer.run.settings.train.steps - 1
    trainer.step(trainer.run.planner.plan(min(trainer.progress.step, last)))


# ---------------------------------------------------------------------------------------------
# Ranges


@contextmanager
def ranges_of(trainer: Trainer) -> Iterator[None]:
    """Name the ranges of a trainer's steps."""
    run, stepper = trainer.run, trainer.stepper
    with ExitStack() as stack:
        for owner, method, name in (
            (trainer.reader, "step_rows", "data: rows"),
            (run.collator, "view", "data: sequences"),
            (run.collator, "masks", "data: masks"),
            (trainer, "_exchange", "counts"),
            (stepper, "_update", "optimizer"),
            (run.encoder, "logits", "head"),
            (run.encoder, "_embed", _EMBEDDINGS),
        ):
            stack.enter_context(_replaced(owner, method, _named(name, getattr(owner, method))))
        stack.enter_context(_replaced(run.collator, "features", _features(run)))
        stack.enter_context(_replaced(run.root, "objectives", _objectives(run.root)))
        for module, name in _modules(run):
            stack.enter_context(_hooked(module, name))
        yield


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def ranged(*arguments: Any, **named: Any) -> Any:
        with record_function(_PREFIX + name):
            return function(*arguments, **named)

    return ranged


def _features(run: Run) -> list[Contribution[Feature]]:
    return [
        _with_range(one, f"data: {one.instance}", one.component.compute)
        for one in run.collator.features
    ]


def _objectives(root: Root) -> dict[str, tuple[Contribution[Objective], ...]]:
    return {
        stream: tuple(
            _with_range(
                one, f"objective {one.component.name} ({one.instance})", one.component.compute
            )
            for one in owners
        )
        for stream, owners in root.objectives.items()
    }


def _with_range(owner: Contribution[C], name: str, compute: Callable[..., Any]) -> Contribution[C]:
    component: Any = owner.component
    return replace(owner, component=replace(component, compute=_named(name, compute)))


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object another attribute for a while."""
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _modules(run: Run) -> Iterator[tuple[nn.Module, str]]:
    """Yield the modules that are ranges of their own; inner ones are taken from outer ones."""
    encoder = run.encoder
    yield encoder.card.encoder(encoder.backbone).get_submodule(encoder.card.embeddings), _EMBEDDINGS
    attention, _ = encoder.card.sites["attn_out"]
    for block in encoder.card.block_list(encoder.backbone):
        yield block, "feed-forward"
        yield block.get_submodule(attention), "attention"
    for key, part in encoder.parts.items():
        yield part, f"part {key}"


@contextmanager
def _hooked(module: nn.Module, name: str) -> Iterator[None]:
    open_ranges: list[Any] = []

    def enter(*_: Any) -> None:
        named = record_function(_PREFIX + name)
        named.__enter__()
        open_ranges.append(named)

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    handles = (
        module.register_forward_pre_hook(enter, prepend=True),
        module.register_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------------------------------
# What the profiler saw


def booked(events: Sequence[Any]) -> dict[str, Spent]:
    """Return the time of each range, from the profiler's events.

    An operation's own time goes to the innermost range around it, a backward operation's to the
    range of its forward operation. What lies in a step and in no range inside it is ``rest``.

    Args:
        events: function events, as ``profile.events()`` returns them.
    """
    owners: dict[int, _Owner] = {}
    forward: dict[int, str] = {}  # by sequence number
    for event in events:
        owner = _owner(event, owners, forward)
        if owner.range and not owner.backward and event.sequence_nr >= 0:
            forward[event.sequence_nr] = owner.range
    spent: dict[str, Spent] = defaultdict(Spent)
    for event in events:
        owner = owners[id(event)]
        if owner.range:
            own = event.self_cpu_time_total / 1000
            one = spent[owner.range]
            one.backward += own if owner.backward else 0.0
            one.forward += 0.0 if owner.backward else own
            one.device += event.self_device_time_total / 1000
    return dict(spent)


@dataclass(frozen=True)
class _Owner:
    """Whose time an event is; nobody's where the range is empty."""

    range: str = ""
    backward: bool = False


def _owner(event: Any, owners: dict[int, _Owner], forward: Mapping[int, str]) -> _Owner:
    if id(event) not in owners:
        owners[id(event)] = _found_owner(event, owners, forward)
    return owners[id(event)]


def _found_owner(event: Any, owners: dict[int, _Owner], forward: Mapping[int, str]) -> _Owner:
    if event.name.startswith(_PREFIX):
        name = event.name.removeprefix(_PREFIX)
        return _Owner("rest" if name == _STEP else name)
    if event.name.startswith(_BACKWARD):
        if event.sequence_nr < 0:
            return _Owner("gradient sums", backward=True)
        return _Owner(forward.get(event.sequence_nr, "rest"), backward=True)
    return _owner(event.cpu_parent, owners, forward) if event.cpu_parent else _Owner()
