"""What a model card says of the data: the files, and the accounts of corpora among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptm_plus.errors import DataError
from ptm_plus.files import read_json
from ptm_plus.recipes.recipe import ACCOUNT, ROWS
from ptm_plus.settings import RunSettings
from ptm_plus.settings_paths import plugin_files
from ptm_plus.sources.spec import HUB, split_argument, split_parallel

_TOLD = {"recipe", "title", "sample", "documents", "tokens", "sources", "steps"}
"""What is told of an account."""


def data_section(settings: RunSettings) -> str:
    """Return the section as Markdown: names without their folders, corpora with their accounts.

    Args:
        settings: the run's.
    """
    data = settings.data
    given = {"text": data.text, "pairs": data.pairs, "graph": data.kg, "names": data.labels}
    lines = [
        line
        for kind, arguments in {**given, **plugin_files(settings)}.items()
        for argument in arguments
        for line in _lines(kind, argument)
    ]
    return "## Data\n\n" + "\n".join(lines)


def _lines(kind: str, argument: str) -> Iterator[str]:
    languages, path = split_argument(argument)
    spoken = f" ({languages})" if languages else ""
    if path.startswith(HUB):
        yield f"- {kind}: `{path.removeprefix(HUB)}`, of the hub{spoken}"
        return
    account = _account(Path(path))
    if account is None:
        names = (f"`{Path(one).name}`" for one in split_parallel(path) or (path,))
        yield f"- {kind}: {', '.join(names)}{spoken}"
        return
    documents, tokens = account["documents"], account["tokens"]
    sampled = ", from its samples" if account["sample"] else ""
    yield (
        f"- {kind}: {account['title']} (recipe `{account['recipe']}`{sampled}): "
        f"{documents['out']:,} of {documents['in']:,} documents, {tokens['out']:,} of "
        f"{tokens['in']:,} words and marks"
    )
    for source in account["sources"]:
        yield (
            f"  - {source['name']}: {source['documents']['out']:,} documents; "
            f"{source['licence']}; {source['provenance']}"
        )
    done = (
        step["kind"] + (f" (dropped {dropped:,})" if dropped else "")
        for step in account["steps"]
        if step["kind"] not in ("read", "work files")
        for dropped in [sum(step["dropped"].values())]
    )
    yield f"  - steps: {', '.join(done) or 'none'}"


def _account(rows: Path) -> dict[str, Any] | None:
    """Return the account of the corpus that files lie in; ``None`` where they lie in none."""
    path = rows.parent.parent / ACCOUNT
    if rows.parent.name != ROWS or not path.is_file():
        return None
    try:
        found = read_json(path)
    except DataError:
        return None  # somebody else's file of that name
    return found if isinstance(found, dict) and found.keys() >= _TOLD else None
