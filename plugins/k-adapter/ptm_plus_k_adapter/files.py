"""Adapters as files of their own, bound to the encoder that they were trained beside.

from transformers import AutoModel
from ptm_plus_k_adapter.files import AdaptedEncoder

model = AdaptedEncoder(AutoModel.from_pretrained("exported"), ["exported/ptm_plus/k-adapter"])
states = model(**batch)  # [B, L, d]: what encoder and adapter know together
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ptm_plus import DataError
from ptm_plus_k_adapter.adapter import Adapter

WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
FORMAT = 1


def weights_hash(encoder: nn.Module, names: Sequence[str] | None = None) -> str:
    """Return a hash of an encoder's weights, by name, as float32.

    Args:
        encoder: the model below any head.
        names: the weights that count; all by default.
    """
    state = encoder.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state if names is None else names):
        digest.update(name.encode())
        digest.update(state[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_adapter(
    folder: Path,
    parts: Mapping[str, nn.Module],
    *,
    name: str,
    encoder: nn.Module,
    places: Sequence[int],
    labels: Mapping[str, Sequence[str]],
) -> list[str]:
    """Write an adapter and its heads; return a note for the model card.

    Args:
        folder: where to.
        parts: the plugin's parts.
        name: the adapter's name.
        encoder: the encoder that it belongs to.
        places: where it reads states.
        labels: label lists of its tasks.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{part}.{key}": value.detach().to("cpu").contiguous()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)
    adapter = parts["adapter"]
    assert isinstance(adapter, Adapter)
    first = adapter.places[0]
    tasks = sorted(set(parts) - {"adapter"})
    card = {
        "format": FORMAT,
        "name": name,
        "places": list(places),
        "hidden": int(adapter.join.out_features),
        "size": int(first.down.out_features),
        "layers": len(first.layers),
        "heads": int(first.layers[0].heads),
        "tasks": tasks,
        "labels": {task: list(names) for task, names in labels.items()},
        "encoder": {"sha256": weights_hash(encoder), "weights": sorted(encoder.state_dict())},
    }
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (folder / CARD).write_text(text, encoding="utf-8")
    return [f"{WEIGHTS}: adapter {name!r} ({', '.join(tasks)}), for this encoder only"]


def read_adapter(folder: Path, encoder: nn.Module) -> tuple[Adapter, dict[str, Any]]:
    """Return an adapter and its card.

    Args:
        folder: where it was written.
        encoder: the encoder that it is to stand beside.

    Raises:
        DataError: a file is missing or damaged, or the encoder is another one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / CARD
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted, names = card["encoder"]["sha256"], card["encoder"]["weights"]
        shape = [int(card[name]) for name in ("hidden", "size", "layers", "heads")]
        places = len(card["places"])
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r} instead of {FORMAT}")
        missing = sorted(set(names) - set(encoder.state_dict()))
        found = "" if missing else weights_hash(encoder, names)
        tensors = load_file(path.with_name(WEIGHTS))
        hidden, size, layers, heads = shape
        adapter = Adapter(hidden, places, size, layers, heads, dropout=0.0)
        own = {
            name.removeprefix("adapter."): tensor
            for name, tensor in tensors.items()
            if name.startswith("adapter.")
        }
        adapter.load_state_dict(own)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        hint = "export the run again"
        raise DataError(f"is no adapter: {error}", hint, path=path) from error
    if missing or found != wanted:
        raise DataError(
            f"adapter {card['name']!r} belongs to another encoder: its weights have the hash "
            f"{wanted[:16]}…, these {found[:16] or 'other names'}…",
            "load it beside the encoder that it was exported with",
            path=path,
        )
    return adapter.eval(), card


class AdaptedEncoder(nn.Module):
    """A plain transformers encoder with adapters beside it.

    Args:
        encoder: from ``AutoModel.from_pretrained``, or any model with a head above it.
        folders: where the adapters were written.
        combine: how several become one: their states through a new map (``concat``), or added.
        freeze: keep encoder and adapters as they are.

    Raises:
        DataError: an adapter is damaged or belongs to another encoder.
    """

    def __init__(
        self,
        encoder: nn.Module,
        folders: Sequence[Path | str],
        combine: Literal["concat", "sum"] = "concat",
        freeze: bool = True,
    ) -> None:
        super().__init__()
        self.encoder: Any = getattr(encoder, "base_model", encoder)
        read = [read_adapter(Path(folder), self.encoder) for folder in folders]
        self.places = [card["places"] for _, card in read]
        self.adapters = nn.ModuleList(adapter for adapter, _ in read)
        hidden = read[0][1]["hidden"]
        several = combine == "concat" and len(read) > 1
        self.combined = nn.Linear(len(read) * hidden, hidden) if several else None
        if freeze:
            self.encoder.requires_grad_(False)
            self.adapters.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Any) -> Tensor:
        """Return ``[B, L, d]`` states.

        Args:
            input_ids: ``[B, L]``.
            attention_mask: ``[B, L]``, 0 where there is padding, which nothing attends to.
            **others: the encoder's further arguments.
        """
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **others
        )
        shape = output.last_hidden_state.shape
        flat = [states.flatten(0, 1) for states in output.hidden_states]
        last = output.last_hidden_state.flatten(0, 1)
        attend = partial(_attend, attention_mask.bool())
        joined = [
            adapter([flat[place] for place in places], last, attend)
            for adapter, places in zip(self.adapters, self.places, strict=True)
        ]
        if self.combined is not None:
            return self.combined(torch.cat(joined, dim=-1)).view(shape)
        return torch.stack(joined).sum(0).view(shape)


def _attend(mask: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (t.unflatten(0, mask.shape).transpose(1, 2) for t in (query, key, value))
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    return mixed.transpose(1, 2).flatten(0, 1)
