"""What ``meta.json`` of an artifact has to hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, Field, ValidationError, create_model

from ptm_plus.errors import DataError, shown
from ptm_plus.prepare.accounts import Account, SpanAccount

FORMAT_VERSION = 3
"""Raised when the arrays change their meaning; part of every artifact's key."""

META = "meta.json"

_Size = Annotated[int, Field(ge=0, lt=2**48)]
_FileName = Annotated[str, Field(max_length=200)]
_Dtype = Annotated[str, Field(pattern=r"^(u?int(8|16|32|64)|float(16|32|64)|[iu][1248]|f[248])$")]


def _model(name: str, kinds: Mapping[str, Any]) -> type[BaseModel]:
    """Return a model of which no field may be missing."""
    fields: dict[str, Any] = {field: (kind, ...) for field, kind in kinds.items()}
    return create_model(name, **fields)


_SPAN_ACCOUNT = _model("span account", get_type_hints(SpanAccount))
_ACCOUNT = _model("account", get_type_hints(Account) | {"spans": dict[str, _SPAN_ACCOUNT]})  # type: ignore[valid-type]
_MODELS = {
    "tokens": _model(
        "tokens",
        {
            **dict.fromkeys(("key", "stream"), str),
            **dict.fromkeys(("fields", "languages", "strata"), list[str]),
            **dict.fromkeys(("tokens", "sequences", "segments"), _Size),
            "labels": dict[_FileName, list[str] | None],
            "columns": dict[_FileName, _Dtype],
            "position": bool,
            "versions": int,
            "inputs": dict[str, Any],
            "account": _ACCOUNT,
        },
    ),
    "spans": _model(
        "spans",
        {
            **dict.fromkeys(("key", "tokens_key"), str),
            **dict.fromkeys(("kinds", "ids"), list[str]),
            **dict.fromkeys(("rows", "sequences"), _Size),
            "account": _SPAN_ACCOUNT,
        },
    ),
}


def read_meta(folder: str | PathLike[str], what: str) -> dict[str, Any]:
    """Return the ``meta.json`` of an artifact.

    Args:
        folder: the artifact.
        what: ``"tokens"`` or ``"spans"``.

    Raises:
        DataError: it is missing, broken, of another version or of another kind.
    """
    path = Path(folder) / META
    try:
        text = path.read_text(encoding="utf-8")
        meta: dict[str, Any] = json.loads(text)
        found = (meta["artifact"], meta["version"])
    except FileNotFoundError as error:
        raise DataError("no prepared data here", "prepare the stream again", path=folder) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"broken: {error}", "delete the folder", path=path) from error
    if found != (what, FORMAT_VERSION):
        raise DataError(
            f"holds {_word(found[0])} of format {shown(found[1])}; expected {what} of format "
            f"{FORMAT_VERSION}",
            "prepare the stream again",
            path=folder,
        )
    try:
        _MODELS[what].model_validate_json(text, strict=True)
    except ValidationError as error:
        raise DataError(f"broken: {_first(error)}", "delete the folder", path=path) from error
    return meta


def _word(value: Any) -> str:
    return value if isinstance(value, str) and value in _MODELS else shown(value)


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{shown(place)}: {fault['msg']}, found {shown(fault['input'])}"
