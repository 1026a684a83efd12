"""A model and its tokenizer in plain transformers: states of texts, losses of masked tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ptm_plus.errors import SettingsError
from ptm_plus.families import CARDS
from ptm_plus.hub import NEEDS_CODE, needs_code, pretrained
from ptm_plus.pretrained import load_config, load_reported, without_bars
from ptm_plus.progress import Watch
from ptm_plus.run_folder import is_run
from ptm_plus.settings import ModelSettings

Reader = Callable[[nn.Module], nn.Module]
"""From an encoder to a module that takes its arguments and returns ``[B, L, d]`` states."""

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included."""


@dataclass(frozen=True)
class Encoded:
    """Texts as token ids.

    Attributes:
        ids: per text, its tokens with the special ones.
        types: per text, token types.
        special: per text, which tokens are special.
        spans: per text, the characters that each token stands for; of a pair, in its own half.
        cut: per text, whether it was longer than the model reads.
    """

    ids: list[list[int]]
    types: list[list[int]]
    special: list[list[bool]]
    spans: list[list[tuple[int, int]]]
    cut: list[bool]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self) -> Iterator[list[int]]:
        """Yield numbers of texts of like length, as many as fit into a batch."""
        order = sorted(range(len(self)), key=lambda number: len(self.ids[number]))
        batch: list[int] = []
        for number in order:
            if batch and (len(batch) + 1) * len(self.ids[number]) > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch


@dataclass(frozen=True)
class PlainModel:
    """A masked-language model, or an encoder without a head.

    Attributes:
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        longest: most tokens of a text.
        has_head: whether it predicts masked tokens.
        readers: what tasks read its encoder with, in the place of its own states.
    """

    model: Any
    tokenizer: Any
    longest: int
    has_head: bool
    readers: Sequence[Reader] = ()

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device(self.model.device)

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> Encoded:
        """Return texts, or pairs of texts, as tokens; the longer half of a pair is cut first."""
        found = self.tokenizer(
            list(texts),
            None if seconds is None else list(seconds),
            truncation="longest_first",
            max_length=self.longest,
            return_token_type_ids=True,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            return_overflowing_tokens=True,
        )
        rows = np.array(found["overflow_to_sample_mapping"], dtype=np.int64)
        first, pieces = np.unique(rows, return_index=True, return_counts=True)[1:]
        offsets = found["offset_mapping"]
        return Encoded(
            [found["input_ids"][n] for n in first],
            [found["token_type_ids"][n] for n in first],
            [[bool(one) for one in found["special_tokens_mask"][n]] for n in first],
            [offsets[n] for n in first],
            cut=(pieces > 1).tolist(),
        )

    def pooled(self, texts: Sequence[str], layers: Sequence[int], watch: Watch) -> Tensor:
        """Return ``[layers, n, d]`` mean states of texts without special tokens, of unit length.

        Args:
            texts: ``n`` texts.
            layers: blocks from 1; 0 for the embeddings.
            watch: where progress goes.
        """
        encoded = self.encode(texts)
        width = int(self.model.config.hidden_size)
        vectors = torch.zeros(len(layers), len(texts), width)
        with watch.task("encode") as task, torch.inference_mode():
            done = 0
            for numbers in encoded.batches():
                inputs = self.padded(encoded, numbers)
                special = _padded([encoded.special[n] for n in numbers], 1).bool()
                keep = (~special).to(self.device)[..., None]
                states = self.base(**inputs, output_hidden_states=True).hidden_states
                for place, layer in enumerate(layers):
                    mean = (states[layer] * keep).sum(1) / keep.sum(1).clamp(min=1)
                    vectors[place, numbers] = normalize(mean.float(), dim=1).cpu()
                done += len(numbers)
                task.update(done, len(texts), "texts")
        return vectors

    def masked_losses(
        self,
        encoded: Encoded,
        asked: Sequence[Sequence[int]],
        watch: Watch,
        masked: Sequence[Sequence[int]] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return, per text, losses in nats and correctness of the tokens that are asked for.

        Args:
            encoded: the texts.
            asked: per text, places of tokens to be predicted; a text without any is not read.
            watch: where progress goes.
            masked: per text, places of tokens to be masked; those asked for by default.
        """
        hidden = asked if masked is None else masked
        losses = [torch.zeros(0)] * len(encoded)
        right = [torch.zeros(0, dtype=torch.bool)] * len(encoded)
        with watch.task("predict") as task, torch.inference_mode():
            done = 0
            for batch in encoded.batches():
                done += len(batch)
                numbers = [n for n in batch if asked[n]]
                if not numbers:
                    continue
                inputs = self.padded(encoded, numbers)
                rows, places = self._where(asked, numbers)
                wanted = inputs["input_ids"][rows, places]
                inputs["input_ids"][self._where(hidden, numbers)] = self.tokenizer.mask_token_id
                logits = self._logits(inputs, rows, places).float()
                sizes = [len(asked[n]) for n in numbers]
                lost = cross_entropy(logits, wanted, reduction="none").cpu().split(sizes)
                hit = (logits.argmax(-1) == wanted).cpu().split(sizes)
                for n, one, other in zip(numbers, lost, hit, strict=True):
                    losses[n], right[n] = one, other
                task.update(done, len(encoded), "texts")
        return losses, right

    def masked_logits(
        self, encoded: Encoded, masked: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield numbers of some texts and logits ``[places, vocabulary]`` of their masked tokens.

        Args:
            encoded: the texts.
            masked: per text, places of tokens that are masked; a text without any is not read.
        """
        for batch in encoded.batches():
            numbers = [n for n in batch if masked[n]]
            if not numbers:
                continue
            with torch.inference_mode():
                inputs = self.padded(encoded, numbers)
                rows, places = self._where(masked, numbers)
                inputs["input_ids"][rows, places] = self.tokenizer.mask_token_id
                logits = self._logits(inputs, rows, places).float()
            yield numbers, logits

    def _where(
        self, places: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return rows and columns of places in a batch of some texts."""
        pairs = [(row, place) for row, n in enumerate(numbers) for place in places[n]]
        where = torch.tensor(pairs, dtype=torch.long, device=self.device).reshape(-1, 2)
        rows, columns = where.unbind(1)
        return rows, columns

    def _logits(self, inputs: dict[str, Tensor], rows: Tensor, places: Tensor) -> Tensor:
        """Return the logits of some places; of all, with a large vocabulary, they take gigabytes.

        The output layer reads those places alone, where the model names it.
        """
        output = self.model.get_output_embeddings()
        if output is None:
            return Tensor(self.model(**inputs).logits[rows, places])
        handle = output.register_forward_pre_hook(lambda _, given: given[0][rows, places])
        try:
            return Tensor(self.model(**inputs).logits)
        finally:
            handle.remove()

    @property
    def base(self) -> Any:
        """The encoder without its head."""
        return getattr(self.model, self.model.base_model_prefix, self.model)

    def padded(self, encoded: Encoded, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the model's inputs ``[B, L]`` for some texts, padded to the longest."""
        ids = _padded([encoded.ids[n] for n in numbers], self.tokenizer.pad_token_id)
        there = _padded([[1] * len(encoded.ids[n]) for n in numbers], 0)
        inputs = {"input_ids": ids, "attention_mask": there}
        if int(getattr(self.model.config, "type_vocab_size", 0) or 0) > 1:
            inputs["token_type_ids"] = _padded([encoded.types[n] for n in numbers], 0)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}


@contextmanager
def loaded(
    name: str, device: str, allow_code: bool, watch: Watch, *, with_plugins: bool = False
) -> Iterator[PlainModel]:
    """Give a model: of a folder, of the hub, or of a run or checkpoint, which is exported first.

    Args:
        name: folder or hub name.
        device: ``auto``, ``cpu`` or ``cuda``.
        allow_code: run the code that a run folder names, or that comes with a model.
        watch: where progress goes.
        with_plugins: with what the run's plugins have read beside the encoder.

    Raises:
        SettingsError: there is none, or its tokenizer is missing or has no padding or mask token;
            or it is no run and is to be read with a run's plugins.
        DataError: the run has no whole checkpoint.
    """
    if not is_run(Path(name)):
        if with_plugins:
            raise SettingsError(
                f"{name}: not a run folder, so it has no plugins", "name the run, or its checkpoint"
            )
        yield load_plain(name, device, allow_code)
        return
    from ptm_plus.exporting.export import export_run, readers
    from ptm_plus.trained_run import trained_run

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "model"
        run, checkpoint = trained_run(Path(name), watch, allow_code=allow_code)
        export_run(run, checkpoint, target, False, watch)
        model = load_plain(str(target), device)
        yield replace(model, readers=readers(run, target)) if with_plugins else model


def load_plain(name: str, device: str = "cpu", trust_remote_code: bool = False) -> PlainModel:
    """Load a model and its tokenizer, with weights in float32; see :func:`loaded`."""
    settings = ModelSettings(path=name, trust_remote_code=trust_remote_code)
    config = load_config(settings)
    with without_bars(), _without_reports():
        model, missing = load_reported(settings, config)
    lost = sorted(key for key in missing if key.startswith(f"{model.base_model_prefix}."))
    if lost:
        raise SettingsError(
            f"{name}: lacks {len(lost)} weights of the encoder, such as {lost[0]}",
            "save it again with transformers' save_pretrained",
        )
    if "attention_mask" not in signature(model.forward).parameters:
        raise SettingsError(
            f"{name}: {type(model).__name__} takes no attention mask, so texts of a batch would "
            "change each other",
            "evaluate measures encoders that attend",
        )
    with suppress(ValueError):  # some families have none but their own
        model.set_attn_implementation("sdpa")
    tokenizer = _tokenizer(name, trust_remote_code)
    longest = min(_served(model), int(min(tokenizer.model_max_length, 2**30)))
    return PlainModel(
        model.eval().float().to(chosen_device(device)), tokenizer, longest, not missing
    )


@contextmanager
def _without_reports() -> Iterator[None]:
    """Load without transformers' table of missing weights: what they are needed for is told."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _tokenizer(name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    where, given = pretrained(name, "MODEL", trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **given)
    except Exception as error:  # transformers raises whatever its readers raise
        reason, hint = str(error).strip().splitlines()[0], "copy the tokenizer's files beside it"
        if needs_code(error):
            reason, hint = NEEDS_CODE
        raise SettingsError(f"{name}: no tokenizer: {reason}", hint) from error
    for role in ("pad_token_id", "mask_token_id"):
        if getattr(tokenizer, role, None) is None:
            raise SettingsError(
                f"{name}: its tokenizer has no {role.removesuffix('_id').replace('_', ' ')}",
                "give the model's own tokenizer",
            )
    return tokenizer


def _served(model: Any) -> int:
    """Return the longest sequence that the position table serves."""
    config = model.config
    if config.model_type in CARDS:
        return CARDS[config.model_type].longest(config)
    positions = int(getattr(config, "max_position_embeddings", None) or 512)
    tables = [one for one in model.modules() if isinstance(one, nn.Embedding)]
    tables = [one for one in tables if one.num_embeddings == positions]
    # Where the table has a padding row, as in MPNet, positions begin after it.
    return positions - max((one.padding_idx + 1 for one in tables if one.padding_idx), default=0)


def chosen_device(device: str) -> str:
    """Return the device that ``auto`` stands for here, and any other as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _padded(rows: Sequence[Sequence[int] | Sequence[bool]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*map(int, row), *[value] * (longest - len(row))] for row in rows])
