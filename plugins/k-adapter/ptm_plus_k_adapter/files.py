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
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ptm_plus import DataError, SettingsError
from ptm_plus_k_adapter.adapter import Adapter

WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
FORMAT = 1

_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What a damaged card or file sets off."""


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
    sites: Mapping[str, str],
    places: Sequence[int],
    labels: Mapping[str, Sequence[str]],
) -> list[str]:
    """Write an adapter and its heads; return a note for the model card.

    Args:
        folder: where to.
        parts: the plugin's parts.
        name: the adapter's name.
        encoder: the encoder that it belongs to.
        sites: paths of its ``embeddings`` and of its list of ``blocks``, below it.
        places: where it reads states: 0 after the embeddings, k after block k.
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
        "sites": {site: sites[site] for site in ("embeddings", "blocks")},
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
    from safetensors.torch import load_file

    path = Path(folder) / CARD
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted, names = card["encoder"]["sha256"], card["encoder"]["weights"]
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r} instead of {FORMAT}")
        missing = sorted(set(names) - set(encoder.state_dict()))
        found = "" if missing else weights_hash(encoder, names)
        if found == wanted:
            for place in card["places"]:
                site(encoder, card["sites"], place)
        shape = {name: int(card[name]) for name in ("hidden", "size", "layers", "heads")}
        adapter = Adapter(places=len(card["places"]), dropout=0.0, **shape)
        tensors = load_file(path.with_name(WEIGHTS))
        own = {
            name.removeprefix("adapter."): tensor
            for name, tensor in tensors.items()
            if name.startswith("adapter.")
        }
        adapter.load_state_dict(own)
    except _BROKEN as error:
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


def site(encoder: nn.Module, sites: Mapping[str, str], place: int) -> nn.Module:
    """Return the module whose output is the state at a place.

    Args:
        encoder: the model below any head.
        sites: paths of ``embeddings`` and ``blocks``.
        place: 0 for the embeddings, k for block k, counted from 1.

    Raises:
        ValueError: there is no such place.
    """
    if place == 0:
        return encoder.get_submodule(sites["embeddings"])
    blocks = encoder.get_submodule(sites["blocks"])
    if not isinstance(blocks, nn.ModuleList) or not 0 < place <= len(blocks):
        raise ValueError(f"the encoder has no place {place}")
    return blocks[place - 1]


class AdaptedEncoder(nn.Module):
    """A plain transformers encoder with adapters beside it (Wang et al. 2021, section 3.4).

    Args:
        encoder: from ``AutoModel.from_pretrained``, or any model with a head above it.
        folders: where the adapters were written; a mapping gives them other names than their own.
        combine: how several become one: their states through a new map (``concat``), or added.
        freeze: what stays as it is, in evaluation mode: ``all`` of encoder and adapters, the
            ``adapters`` (as the paper's fine-tuning does), or ``nothing``.

    Attributes:
        adapters: the adapters by name.

    Raises:
        DataError: an adapter is damaged or belongs to another encoder.
        SettingsError: no adapter is named, two have one name, or a name has a dot.
    """

    def __init__(
        self,
        encoder: nn.Module,
        folders: Mapping[str, Path | str] | Sequence[Path | str],
        combine: Literal["concat", "sum"] = "concat",
        freeze: Literal["all", "adapters", "nothing"] = "all",
    ) -> None:
        super().__init__()
        self.encoder: Any = getattr(encoder, "base_model", encoder)
        named = _named(folders, self.encoder)
        weight = next(self.encoder.parameters())
        self.adapters = nn.ModuleDict({name: adapter for name, (adapter, _) in named.items()})
        self.adapters.to(weight)
        cards = {name: card for name, (_, card) in named.items()}
        self._places = {name: tuple(card["places"]) for name, card in cards.items()}
        hidden = next(iter(cards.values()))["hidden"]
        several = combine == "concat" and len(named) > 1
        self.combined = nn.Linear(len(named) * hidden, hidden).to(weight) if several else None
        self._read: dict[int, Tensor] = {}
        sites = next(iter(cards.values()))["sites"]
        for place in sorted({place for places in self._places.values() for place in places}):
            site(self.encoder, sites, place).register_forward_hook(partial(self._keep, place))
        frozen = {"all": (self.encoder, self.adapters), "adapters": (self.adapters,), "nothing": ()}
        self._frozen = frozen[freeze]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> AdaptedEncoder:
        """Set training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Any) -> Tensor:
        """Return ``[B, L, d]`` states.

        Args:
            input_ids: ``[B, L]``.
            attention_mask: ``[B, L]``, 0 where there is padding, which nothing attends to.
            **others: the encoder's further arguments.
        """
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **others)
        read = {place: states.flatten(0, 1) for place, states in self._read.items()}
        self._read.clear()
        last = output[0].flatten(0, 1)
        attend = partial(_attend, attention_mask.bool())
        joined = [
            adapter([read[place] for place in self._places[name]], last, attend)
            for name, adapter in self.adapters.items()
        ]
        if self.combined is not None:
            return self.combined(torch.cat(joined, dim=-1)).view(output[0].shape)
        return torch.stack(joined).sum(0).view(output[0].shape)

    def _keep(self, place: int, module: nn.Module, arguments: Any, output: Any) -> None:
        self._read[place] = output[0] if isinstance(output, tuple) else output


def adapted(folder: Path, encoder: nn.Module) -> AdaptedEncoder:
    """Return an encoder that learns, with one adapter beside it that does not (section 3.4).

    Args:
        folder: where the adapter was written.
        encoder: the one that it was trained beside.

    Raises:
        DataError: the adapter is damaged or belongs to another encoder.
    """
    return AdaptedEncoder(encoder, [folder], freeze="adapters")


def _named(
    folders: Mapping[str, Path | str] | Sequence[Path | str], encoder: nn.Module
) -> dict[str, tuple[Adapter, dict[str, Any]]]:
    if isinstance(folders, Mapping):
        found = [(name, *read_adapter(Path(one), encoder)) for name, one in folders.items()]
    else:
        read = [read_adapter(Path(one), encoder) for one in folders]
        found = [(str(card["name"]), adapter, card) for adapter, card in read]
    names = [name for name, _, _ in found]
    if not names or len(set(names)) < len(names) or any("." in name for name in names):
        raise SettingsError(
            f"adapters are named {', '.join(names)}" if names else "no adapter is named",
            'give each a name of its own, without a dot: {"fac": FOLDER, "lin": FOLDER}',
        )
    return {name: (adapter, card) for name, adapter, card in found}


def _attend(mask: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (t.unflatten(0, mask.shape).transpose(1, 2) for t in (query, key, value))
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    return mixed.transpose(1, 2).flatten(0, 1)
