"""What a run depends on, and how two runs differ: a checkpoint belongs to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ptm_plus._version import __version__
from ptm_plus.errors import DataError
from ptm_plus.prepare.tokenization import fingerprint
from ptm_plus.settings_files import leaves

if TYPE_CHECKING:
    from ptm_plus.run import Run
    from ptm_plus.settings import RunSettings

Identity = dict[str, dict[str, Any]]
"""Plain JSON values by name, by part: ``plugins``, ``data``, ``tables``, ``settings``, …"""

FREE = (
    "output",
    "prepare.workers",
    "prepare.cache",
    "batch.micro_rows",
    "train.checkpoint_every",
    "train.keep",
    "train.keep_best",
    "train.keep_every",
    "train.evaluate_every",
    "train.log_every",
    "train.threads",
    "train.parallel",
    "guards",
    "evaluate",
)
"""Settings that may change in a run under way: at most the rounding of its sums depends on them.
Data, plugins and tables are compared by content, so the paths of files are free as well."""

_BY_CONTENT = ("plugins", "data.text", "data.pairs", "data.kg", "data.labels", "data.links")
_FILES = (*_BY_CONTENT, "data.vectors", "tokenizer.path", "model.path", "model.init_from")


def identity(run: Run) -> Identity:
    """Return everything that a run's weights depend on."""
    graph = run.prepared.graph
    return {
        "plugins": {one.instance: one.version for one in run.plugins.instances},
        "data": {name: data.store.meta["key"] for name, data in run.prepared.streams.items()},
        "tables": {f"{t.instance}.{t.component.name}": t.component.sha256 for t in run.tables},
        "tokenizer": {"hash": fingerprint(run.prepared.tokenizer)},
        "graph": {} if graph is None else {"hash": graph.fingerprint},
        "settings": decisive(run.settings, _plugin_files(run)),
    }


def _plugin_files(run: Run) -> list[str]:
    """Return the settings of plugins that name files, by dotted key."""
    return [
        f"plugin.{one.instance}.{path}" for one in run.plugins.instances for path in one.info.paths
    ]


def decisive(settings: RunSettings, files: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings that weights depend on, by dotted key.

    Args:
        settings: the run's.
        files: further keys that name files: these are compared by content.
    """
    free = (*FREE, *_FILES, *files)
    return {
        key: value
        for key, value in leaves(settings.model_dump(mode="json"))
        if not any(key == one or key.startswith(f"{one}.") for one in free)
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for everything that differs.

    Args:
        before: identity of the run that wrote the checkpoint.
        now: identity of this run.
    """
    return [
        f"{part} {name}: {_shown(then.get(name))} then, {_shown(values.get(name))} now"
        for part, values in now.items()
        for then in [before.get(part, {})]
        for name in sorted({*values, *then})
        if values.get(name) != then.get(name)
    ]


def _shown(value: Any) -> Any:
    return "none" if value in (None, "") else value


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], path: Any) -> None:
    """Check that a checkpoint belongs to this run.

    Raises:
        DataError: it does not; with all differences.
    """
    apart = differences(before, now)
    if apart:
        raise DataError(
            "the checkpoint belongs to another run:\n  " + "\n  ".join(apart),
            "resume with the same plugins, files and settings; or go on with the changed ones: "
            "--allow-changes",
            path=path,
        )


def versions() -> dict[str, str]:
    """Return the versions on which the last bit of a result may depend."""
    others = {name: metadata.version(name) for name in ("torch", "transformers", "numpy")}
    return {"ptm-plus": __version__, **others}
