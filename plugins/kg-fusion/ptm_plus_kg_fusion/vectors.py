"""Training entity vectors with PyKEEN, in the graph's own order of entities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from ptm_plus import DataError, SettingsError, nearest
from ptm_plus.knowledge import Graph
from ptm_plus_kg_fusion.pykeen_session import pykeen_session
from ptm_plus_kg_fusion.ranking import HITS

if TYPE_CHECKING:
    from pykeen.triples import CoreTriplesFactory
    from torch import Tensor

Progress = Callable[[int, int, float], None]
"""Called after each epoch with (epochs done, epochs in all, mean loss)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSettings:
    """How vectors are trained.

    Attributes:
        model: any PyKEEN model by name, upper and lower case alike.
        dimension: PyKEEN's ``embedding_dim``.
        epochs: passes over the triples; ``None`` for 2,000,000 / triples, within 20 … 100.
        batch_size: triples per optimizer step; ``None`` for triples / 8, within 64 … 4096.
        learning_rate: of Adam.
        negatives: entities drawn for each step; its triples are ranked against all of them.
        seed: of initial vectors, order and corruption.
        device: torch device.
        patience: stop when the ranks of the validation triples have not become better in so many
            evaluations, and take the best vectors; 0 never stops.
        evaluate_every: epochs from one evaluation to the next.
    """

    model: str = "TransE"
    dimension: int = 100
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 0.01
    negatives: int = 128
    seed: int = 0
    device: str = "cpu"
    patience: int = 0
    evaluate_every: int = 5

    def __post_init__(self) -> None:
        for name in ("dimension", "epochs", "batch_size", "learning_rate", "negatives"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(f"{name} = {value}: it must be above zero")

    def epochs_for(self, triples: int) -> int:
        """Return the number of epochs on a graph of that many triples."""
        return self.epochs or min(100, max(20, 2_000_000 // triples))

    def batch_size_for(self, triples: int) -> int:
        """Return the number of triples per step on a graph of that many."""
        return min(self.batch_size or min(4096, max(64, triples // 8)), triples)


class VectorOptions(TypedDict, total=False):
    """The fields of ``VectorSettings`` as keyword arguments."""

    model: str
    dimension: int
    epochs: int | None
    batch_size: int | None
    learning_rate: float
    negatives: int
    seed: int
    device: str
    patience: int
    evaluate_every: int


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        vectors: float32 ``[entities, d]``.
        epochs: passes over the triples, up to the vectors that were taken.
        figures: ranking metrics of the held-out triples, where there are any.
    """

    vectors: NDArray[np.float32]
    epochs: int
    figures: dict[str, float]


def train_and_rank(
    graph: Graph,
    *,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    **options: Unpack[VectorOptions],
) -> Trained:
    """Train on a graph, stop early by validation triples, and rank test triples.

    Args:
        graph: the facts that are trained on.
        valid: ``[n, 3]`` held-out facts in the graph's numbers; needed for ``patience``.
        test: further ones.
        progress: called after each epoch.
        options: fields of ``VectorSettings``.

    Raises:
        SettingsError: as ``train_vectors``, or ``patience`` without ``valid``.
        DataError: training diverged.
    """
    settings = VectorSettings(**options)
    if settings.patience and valid is None:
        raise SettingsError("early stopping needs validation triples", "give --valid FILE")
    with pykeen_session() as pykeen:
        known = [graph.triples, *([] if valid is None else [valid])]
        model = _make_model(pykeen, _factory(graph), settings)
        watch = None
        if settings.patience and valid is not None:
            watch = _Watch(settings, lambda: _rank(pykeen, model, valid, [graph.triples])["mrr"])
        epochs = _fit(model, graph.triples, settings, progress, watch)
        asked = valid if test is None else test
        figures = {} if asked is None else _rank(pykeen, model, asked, known)
        vectors = _entity_vectors(model)
    return Trained(_finite(vectors, settings), epochs, figures)


class _Watch:
    """Evaluates while training, and remembers the best weights."""

    def __init__(self, settings: VectorSettings, measure: Callable[[], float]) -> None:
        self._settings = settings
        self._measure = measure
        self._best = -1.0
        self._state: dict[str, Any] = {}
        self._epoch = self._waited = 0

    def has_enough(self, model: Any, epoch: int, last: bool) -> bool:
        """Evaluate where it is due, and tell whether patience has run out."""
        if epoch % self._settings.evaluate_every and not last:
            return False
        score = self._measure()
        if score > self._best:
            self._best, self._epoch, self._waited = score, epoch, 0
            self._state = {name: value.clone() for name, value in model.state_dict().items()}
            return False
        self._waited += 1
        return self._waited >= self._settings.patience

    def restore(self, model: Any) -> int:
        """Put the best weights back and return their epoch."""
        model.load_state_dict(self._state)
        return self._epoch


def _rank(
    pykeen: ModuleType, model: Any, asked: NDArray[np.int64], known: Sequence[NDArray[np.int64]]
) -> dict[str, float]:
    """Rank heads and tails of triples among all entities, known true triples left out."""
    import torch

    others = [one for one in known if one is not asked]
    results = pykeen.evaluation.RankBasedEvaluator(filtered=True).evaluate(
        model=model,
        mapped_triples=torch.from_numpy(asked.copy()),
        additional_filter_triples=[torch.from_numpy(one.copy()) for one in others],
        batch_size=256,
        use_tqdm=False,
    )
    names = {"mrr": "inverse_harmonic_mean_rank", **{f"hits_at_{k}": f"hits@{k}" for k in HITS}}
    return {ours: float(results.get_metric(theirs)) for ours, theirs in names.items()}


def _finite(vectors: NDArray[np.float32], settings: VectorSettings) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise DataError(
            f"training {settings.model} diverged: vectors are not finite",
            f"lower the learning rate (it was {settings.learning_rate})",
        )
    return vectors


def train_vectors(
    graph: Graph, *, progress: Progress | None = None, **options: Unpack[VectorOptions]
) -> NDArray[np.float32]:
    """Train a knowledge graph embedding on all triples.

    The same graph, settings and machine give the same vectors; the caller's random state is left
    as it was, and no file is written.

    Args:
        graph: the facts.
        progress: called after each epoch.
        options: fields of ``VectorSettings``.

    Returns:
        float32 [entities, d], row i for ``graph.entities[i]``. d is ``dimension`` for models with
        one real vector per entity. A complex number counts as two, real part first; several
        representations of an entity (TransD's two) are joined in PyKEEN's order.

    Raises:
        SettingsError: an unknown model, one that needs more than triples, or a value out of range.
        DataError: training diverged.
        EnvironmentProblem: PyKEEN is not installed.
    """
    settings = VectorSettings(**options)
    with pykeen_session() as pykeen:
        model = _make_model(pykeen, _factory(graph), settings)
        _fit(model, graph.triples, settings, progress)
        vectors = _entity_vectors(model)
    return _finite(vectors, settings)


def evaluate_vectors(
    graph: Graph,
    *,
    held_out: float = 0.05,
    progress: Progress | None = None,
    **options: Unpack[VectorOptions],
) -> dict[str, float]:
    """Train on a part of the triples and rank the rest, known true triples left out of the ranks.

    Args:
        graph: the facts.
        held_out: share of triples to predict; every entity and relation keeps one in training.
        progress: called after each epoch.
        options: fields of ``VectorSettings``.

    Returns:
        ``mrr``, ``hits_at_1``, ``hits_at_3``, ``hits_at_10`` over heads and tails, and
        ``held_out``, the number of triples ranked. Ties count as the mean of their best and
        worst rank.

    Raises:
        SettingsError: as ``train_vectors``, or ``held_out`` not between 0 and 1.
        EnvironmentProblem: PyKEEN is not installed.
    """
    if not 0.0 < held_out < 1.0:
        raise SettingsError(f"held_out = {held_out}: it must lie between 0 and 1")
    settings = VectorSettings(**options)
    with pykeen_session() as pykeen:
        whole = _factory(graph)
        known, asked = whole.split([1.0 - held_out, held_out], random_state=settings.seed)
        model = _make_model(pykeen, known, settings)
        triples = known.mapped_triples.numpy()
        _fit(model, triples, settings, progress)
        figures = _rank(pykeen, model, asked.mapped_triples.numpy(), [triples])
    return {**figures, "held_out": float(asked.num_triples)}


def _fit(
    model: Any,
    triples: NDArray[np.int64],
    settings: VectorSettings,
    progress: Progress | None,
    watch: _Watch | None = None,
) -> int:
    """Train, and return the epochs up to the weights that were kept."""
    import torch

    from ptm_plus_kg_fusion.shared_negatives import epochs

    number = settings.epochs_for(len(triples))
    losses = epochs(
        model,
        torch.from_numpy(triples.copy()),
        number=number,
        batch_size=settings.batch_size_for(len(triples)),
        learning_rate=settings.learning_rate,
        negatives=settings.negatives,
        seed=settings.seed,
    )
    for epoch, loss in enumerate(losses, start=1):
        if progress is not None:
            progress(epoch, number, loss)
        if watch is not None and watch.has_enough(model, epoch, last=epoch == number):
            break
    return number if watch is None else watch.restore(model)


def _make_model(pykeen: ModuleType, factory: CoreTriplesFactory, settings: VectorSettings) -> Any:
    """Build a PyKEEN model by name."""
    import torch

    resolver = pykeen.models.model_resolver
    if resolver.normalize(settings.model) not in resolver.lookup_dict:
        names = sorted(kind.__name__ for kind in resolver.lookup_dict.values())
        raise SettingsError(
            f"unknown PyKEEN model {settings.model!r}{nearest(settings.model, names)}",
            f"models: {', '.join(names)}",
        )
    try:
        model = resolver.make(
            settings.model,
            triples_factory=factory,
            embedding_dim=settings.dimension,
            random_seed=settings.seed,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"PyKEEN model {settings.model!r} cannot be made from triples and a dimension: {error}",
            "take one that can: TransE, RotatE, DistMult, ComplEx, MuRE, …",
        ) from error
    return model.to(torch.device(settings.device))


def _factory(graph: Graph) -> CoreTriplesFactory:
    """Hand PyKEEN the triples under our own numbers, so that row i stays entity i."""
    import torch
    from pykeen.triples import TriplesFactory

    return TriplesFactory(
        mapped_triples=torch.from_numpy(graph.triples.copy()),
        entity_to_id=dict(graph.index),
        relation_to_id={label: at for at, label in enumerate(graph.relations)},
    )


def _entity_vectors(model: Any) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        parts = [_real(representation(None)) for representation in model.entity_representations]
        joined: NDArray[np.float32] = torch.cat(parts, dim=1).float().cpu().numpy()
    return joined


def _real(values: Tensor) -> Tensor:
    """Flatten [entities, …], real or complex, to real [entities, d]."""
    import torch

    rows = values.reshape(len(values), -1)
    return torch.view_as_real(rows).flatten(start_dim=1) if rows.is_complex() else rows
