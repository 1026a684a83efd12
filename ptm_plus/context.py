"""What hooks may read, and from when on.

The core owns one :class:`Context` and advances it phase by phase. A hook gets a
:class:`ContextView` of it, which refuses what is not known yet by the contract, whether or not
the core happens to know it already: a plugin cannot come to depend on an accident of order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ptm_plus.contract import HOOKS, PHASES, Phase
from ptm_plus.errors import PluginError
from ptm_plus.progress import Silent, Watch

if TYPE_CHECKING:
    from ptm_plus.components import Stream
    from ptm_plus.settings import RunSettings

ATTRIBUTES: Mapping[Phase, tuple[str, ...]] = MappingProxyType(
    {
        "settings": ("settings", "inputs", "watch"),
        "streams": ("streams",),
        "tokenizer": ("tokenizer",),
        "labels": ("labels", "occurrences", "sizes", "graph", "vectors", "model_config", "card"),
        "modules": ("backbone", "parts"),
        "run": ("run",),
    }
)
"""What becomes known in each phase."""

_PHASE_OF = {name: phase for phase, names in ATTRIBUTES.items() for name in names}


class Context:
    """Everything that is known of a run so far; owned by the core.

    Args:
        settings: the resolved settings.
        inputs: names of the inputs that were given: ``text``, ``pairs``, ``graph``, ``labels``, …
        watch: where long work tells how far it is.
    """

    def __init__(
        self, settings: RunSettings, inputs: Collection[str] = (), watch: Watch | None = None
    ) -> None:
        self._values: dict[str, Any] = {
            "settings": settings,
            "inputs": frozenset(inputs),
            "watch": watch or Silent(),
        }
        self.phase: Phase = "settings"

    def advance(self, phase: Phase, **values: Any) -> None:
        """Enter the next phase with everything that becomes known in it.

        Args:
            phase: the phase that follows the present one.
            **values: one value per name in ``ATTRIBUTES[phase]``; mappings become read-only.

        Raises:
            ValueError: another phase is next, or a name is missing or unknown.
        """
        position = PHASES.index(self.phase) + 1
        if position == len(PHASES) or phase != PHASES[position]:
            raise ValueError(f"{phase!r} does not follow {self.phase!r}")
        if set(values) != set(ATTRIBUTES[phase]):
            raise ValueError(f"phase {phase!r} takes {ATTRIBUTES[phase]}, not {tuple(values)}")
        self._values |= {
            name: MappingProxyType(value) if isinstance(value, dict) else value
            for name, value in values.items()
        }
        self.phase = phase

    def view(self, instance: str, hook: str) -> ContextView:
        """Return what one hook of one plugin may read.

        Raises:
            ValueError: the hook is called before its phase.
        """
        if PHASES.index(HOOKS[hook].phase) > PHASES.index(self.phase):
            raise ValueError(f"{hook} is called in phase {self.phase!r}, before its own")
        return ContextView(self._values, instance, hook)


class ContextView:
    """What a hook may read. Reading more raises a ``PluginError`` that names the phase."""

    __slots__ = ("_hook", "_instance", "_values")

    def __init__(self, values: Mapping[str, Any], instance: str, hook: str) -> None:
        self._values = values
        self._instance = instance
        self._hook = hook

    @property
    def settings(self) -> RunSettings:
        """The settings of the run; a plugin's own come to it when it is made."""
        return self._read("settings")

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the inputs that were given: ``text``, ``pairs``, ``graph``, ``labels``."""
        return self._read("inputs")

    @property
    def watch(self) -> Watch:
        """Where long work tells how far it is."""
        watch: Watch = self._read("watch")
        return watch

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Streams by name (from phase streams), for what is counted over text beforehand."""
        streams: Mapping[str, Stream] = self._read("streams")
        return streams

    @property
    def tokenizer(self) -> Any:
        """The tokenizer (from phase tokenizer); to be read, never changed."""
        return self._read("tokenizer")

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels by span kind or label name (from phase labels); ids in views are rows of it."""
        return self._read("labels")

    @property
    def occurrences(self) -> Mapping[str, Any]:
        """How often each label is marked in the text, by span kind, in the order of ``labels``."""
        return self._read("occurrences")

    @property
    def sizes(self) -> Mapping[str, Any]:
        """Training tokens by stream (from phase labels)."""
        return self._read("sizes")

    @property
    def graph(self) -> Any:
        """The knowledge graph, or ``None`` (from phase labels)."""
        return self._read("graph")

    @property
    def vectors(self) -> Any:
        """Path of the given entity vectors, or ``None`` (from phase labels)."""
        return self._read("vectors")

    @property
    def model_config(self) -> Any:
        """The backbone's transformers configuration (from phase labels)."""
        return self._read("model_config")

    @property
    def card(self) -> Any:
        """The backbone's family card: sites, tables, positions (from phase labels)."""
        return self._read("card")

    @property
    def backbone(self) -> Any:
        """The backbone, a plain transformers model (from phase modules)."""
        return self._read("backbone")

    @property
    def parts(self) -> Mapping[str, Any]:
        """Built parts by plugin instance, then by name (from phase modules)."""
        return self._read("parts")

    @property
    def run(self) -> Any:
        """The run under way (in ``ptm_event`` only)."""
        return self._read("run")

    def _read(self, name: str) -> Any:
        if name not in ATTRIBUTES["settings"]:
            self._check_phase(name)
        return self._values[name]

    def _check_phase(self, name: str) -> None:
        wanted, allowed = _PHASE_OF[name], HOOKS[self._hook].phase
        if PHASES.index(wanted) <= PHASES.index(allowed):
            return
        first = next(h for h, s in HOOKS.items() if PHASES.index(s.phase) >= PHASES.index(wanted))
        raise PluginError(
            f"plugin {self._instance!r}: {self._hook} reads context.{name}, which is known from "
            f"phase {wanted!r} on; {self._hook} may read up to phase {allowed!r}",
            f"{first} is the first hook that may read it",
        )
