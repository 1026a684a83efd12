"""The processes of a run: sums, messages, and how the model is spread over them.

Messages between processes are JSON: torch's own object collectives unpickle what arrives.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.distributed.nn  # before there is a group: its default arguments would keep it for ever
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ptm_plus.errors import EnvironmentProblem

if TYPE_CHECKING:
    from ptm_plus.step import Root

Parallel = Literal["ddp", "fsdp"]

T = TypeVar("T")

Name = tuple[str, str, str]

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: one of them may still prepare data on another disk."""

_LOST = ("peer", "Connection", "connection", "Timed out", "timed out", "NCCL", "remote process")
"""Words of torch's errors about a process that cannot be reached any more."""


def make_accelerator(precision: str, device: str = "auto") -> Accelerator:
    """Return the accelerator: devices, processes, autocast."""
    cpu = device == "cpu" or not torch.cuda.is_available()
    bf16 = precision == "bf16" or (
        precision == "auto" and not cpu and torch.cuda.is_bf16_supported()
    )
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE)] if "RANK" in os.environ else []
    return Accelerator(
        cpu=cpu, mixed_precision="bf16" if bf16 else "no", kwargs_handlers=handlers or None
    )


@dataclass(frozen=True)
class World:
    """All processes of a run, seen from this one.

    Attributes:
        accelerator: knows the device, this process's number and how many there are.
    """

    accelerator: Accelerator

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self.accelerator.process_index)

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return bool(self.accelerator.is_main_process)

    def sum(self, values: Tensor) -> Tensor:
        """Return a vector summed over processes, on the host."""
        if self.size == 1:
            return values
        moved = values.to(self.accelerator.device)
        distributed.all_reduce(moved)
        return moved.cpu()

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, as plain JSON, in the order of the processes."""
        text = json.dumps(value, default=_plain).encode()
        if self.size == 1:
            return [json.loads(text)]
        device = self.accelerator.device
        own = torch.tensor([len(text)], device=device)
        lengths = [torch.zeros_like(own) for _ in range(self.size)]
        distributed.all_gather(lengths, own)
        longest = max(int(length) for length in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8, device=device)
        padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
        received = [torch.zeros_like(padded) for _ in range(self.size)]
        distributed.all_gather(received, padded)
        return [
            json.loads(bytes(message[: int(length)].cpu().numpy()))
            for message, length in zip(received, lengths, strict=True)
        ]

    def joined(self, tensors: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """Return tensors of all processes, joined along the first dimension in their order.

        Args:
            tensors: this process's by name; one that a process does not have counts as empty.
        """
        if self.size == 1:
            return dict(tensors)
        shapes = [
            {(*name,): (shape, kind) for name, shape, kind in of_process}
            for of_process in self.gather(
                [[name, list(t.shape), str(t.dtype)] for name, t in tensors.items()]
            )
        ]
        found = {}
        for name in sorted({name for of_process in shapes for name in of_process}):
            shape, kind = next(of[name] for of in shapes if name in of)
            sizes = [of[name][0][0] if name in of else 0 for of in shapes]
            padded = torch.zeros(
                (max(sizes), *shape[1:]),
                dtype=getattr(torch, kind.removeprefix("torch.")),
                device=self.accelerator.device,
            )
            if name in tensors:
                padded[: len(tensors[name])] = tensors[name]
            received = [torch.zeros_like(padded) for _ in sizes]
            distributed.all_gather(received, padded)
            parts = [part[:size] for part, size in zip(received, sizes, strict=True)]
            found[name] = torch.cat(parts)
        return found

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def check_agreement(self, facts: Mapping[str, Any]) -> None:
        """Check that every process starts from the same facts.

        Args:
            facts: plain JSON values by name.

        Raises:
            EnvironmentProblem: says which process differs from the first, and in what.
        """
        first, *others = self.gather(facts)
        for number, other in enumerate(others, start=1):
            apart = sorted(n for n in {*first, *other} if first.get(n) != other.get(n))
            if apart:
                raise EnvironmentProblem(
                    f"the processes of this run differ: process {number} has "
                    + "; ".join(f"{n} {other.get(n)!r} for {first.get(n)!r}" for n in apart[:5]),
                    "start them with the same command, files and installed versions",
                )

    def spread(self, root: Root, blocks: Sequence[nn.Module], parallel: Parallel) -> Any:
        """Return the module that a step calls: the root itself, or wrapped for its processes.

        ``ddp`` keeps the whole model in every process; ``fsdp`` shards parameters, gradients and
        optimizer state (FSDP2), block by block, everything else in one group with the root.

        Args:
            root: everything that holds parameters; sharded in place by ``fsdp``.
            blocks: the encoder's blocks.
            parallel: how.
        """
        if self.size == 1:
            return root
        return wrapped(root, blocks, parallel, self.accelerator.device.type, self.size)

    def average_whole(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients of parameters that stayed whole in a sharded model."""
        if not any(map(is_sharded, parameters)):
            return
        for parameter in parameters:
            if not is_sharded(parameter):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
                parameter.grad /= self.size

    @contextmanager
    def lost_processes(self) -> Iterator[None]:
        """Turn what torch says of a lost process into an error that says how to go on.

        Raises:
            EnvironmentProblem: in place of the ``RuntimeError``.
        """
        try:
            yield
        except RuntimeError as error:
            words = str(error)
            if self.size == 1 or not any(word in words for word in _LOST):
                raise
            raise EnvironmentProblem(
                f"process {self.rank} of {self.size}: another process of this run has ended or "
                f"cannot be reached: {words.splitlines()[0]}",
                "its own message says why; when that is mended, go on with ptm-plus resume",
            ) from error


def _plain(value: Any) -> Any:
    """Return what JSON has no word for as what it has: dataclasses, scalars of arrays."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.item()


def wrapped(
    root: Root, blocks: Sequence[nn.Module], parallel: Parallel, device: str, size: int
) -> Any:
    """Return a root module spread over processes; see :meth:`World.spread`.

    Args:
        root: everything that holds parameters; sharded in place by ``fsdp``.
        blocks: the encoder's blocks.
        parallel: how.
        device: type of the device.
        size: number of processes.
    """
    if parallel == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        names = inspect.signature(DistributedDataParallel).parameters
        buffers = {"forward_sync_buffers", "broadcast_buffers"} & set(names)  # new, old
        options = {max(buffers): False}
        return DistributedDataParallel(root, gradient_as_bucket_view=True, **options)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (size,))
    scalars = {p for p in root.parameters() if not p.ndim}  # which FSDP2 refuses to shard
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    return fully_shard(root, mesh=mesh, ignored_params=scalars)


def at_hand(root: Root, work: Callable[[], T]) -> T:
    """Do a piece of work without a backward pass, with whole parameters; shard them again after.

    Args:
        root: the run's root, sharded or not.
        work: what reads parameters.
    """
    try:
        done: T = root(work)
        return done
    finally:
        if hasattr(root, "reshard"):  # FSDP2 leaves that to the backward pass
            root.reshard()


@contextmanager
def unsynchronised(root: Any) -> Iterator[None]:
    """Keep a backward pass from summing gradients over processes."""
    if hasattr(root, "set_requires_gradient_sync"):  # FSDP2
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)
        return
    with root.no_sync() if hasattr(root, "no_sync") else nullcontext():
        yield


# ---------------------------------------------------------------------------------------------
# Sharded tensors


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is spread over processes."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it is on one process; of a sharded one, every process must ask."""
    value = tensor.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, tensor: Tensor) -> Tensor:
    """Return a whole value, known to every process, placed and sharded as another tensor is."""
    moved = value.to(tensor.device)
    if not isinstance(tensor, DTensor):
        return moved
    return distribute_tensor(moved, tensor.device_mesh, tensor.placements, src_data_rank=None)


def local_rows(tensor: Tensor) -> tuple[int, Tensor]:
    """Return the number of this process's first row of a tensor, and its rows.

    FSDP2 shards the first dimension into equal chunks, the last ones shorter or empty.
    """
    if not isinstance(tensor, DTensor):
        return 0, tensor
    chunk = -(-tensor.shape[0] // tensor.device_mesh.size())
    return chunk * tensor.device_mesh.get_local_rank(), tensor.to_local()


# ---------------------------------------------------------------------------------------------
# Launchers


def launcher_note(world: World) -> str:
    """Say when a launcher was asked for more processes than there are; empty when all is well.

    ``accelerate launch`` starts a single process on a machine without a GPU, whatever it is asked.
    """
    if world.size > 1 or "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return ""
    asked = _asked_of_launcher()
    if asked <= 1:
        return ""
    return (
        f"accelerate launch was asked for {asked} processes, but this run has one; "
        f"on CPUs use: torchrun --nproc_per_node {asked} -m ptm_plus train …"
    )


def _asked_of_launcher() -> int:
    import psutil

    try:
        words = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return 0
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value if equals else "".join(words[place + 1 : place + 2])
            return int(value) if value.isdigit() else 0
    return 0
