"""Relation classification on top of an exported encoder, the same for every arm.

Head and tail stand between markers, ``@ head @`` and ``# tail #``; a linear map reads the states of
the first marker of each. The number of epochs is fixed, no checkpoint is chosen, and the order of
the sentences depends on the seed alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from benchmarks.figures import macro_f1
from benchmarks.real_knowledge.data import Question
from ptm_plus.knowledge import VectorTable
from ptm_plus_k_adapter.files import AdaptedEncoder
from ptm_plus_k_adapter.relations import MARKS, mark
from ptm_plus_kg_fusion.fusion import Fusion

EPOCHS, BATCH, RATE, WARMUP, DROPOUT, LONGEST = 3, 32, 5e-4, 0.1, 0.1, 128
"""The budget of fine-tuning, fixed by what it costs and never chosen by a score."""


def budget() -> dict[str, float]:
    """Return what fine-tuning may spend."""
    return {
        "epochs": EPOCHS,
        "batch": BATCH,
        "learning_rate": RATE,
        "warmup": WARMUP,
        "dropout": DROPOUT,
        "longest": LONGEST,
    }


@dataclass(frozen=True)
class Encoded:
    """Questions as numbers.

    Attributes:
        ids: token numbers of each.
        markers: ``[N, 2]`` first markers of head and tail.
        mentions: ``[N, 2]`` first tokens of head and tail, -1 where truncation took it.
        rows: ``[N, 2]`` rows of their vectors, -1 for none.
        answers: ``[N]`` numbers of the relations.
        cut: questions of which truncation took a marker.
    """

    ids: list[list[int]]
    markers: Tensor
    mentions: Tensor
    rows: Tensor
    answers: Tensor
    cut: int


def encode(
    asked: Sequence[Question],
    tokenizer: Any,
    relations: Sequence[str],
    index: Mapping[str, int],
) -> Encoded:
    """Tokenise questions.

    Args:
        asked: the questions.
        tokenizer: a fast tokenizer.
        relations: the classes.
        index: rows of vectors by entity.
    """
    ids, markers, mentions, rows, cut = [], [], [], [], 0
    for one in asked:
        text, places = mark(one.text, one.spans)
        coded = tokenizer(text, truncation=True, max_length=LONGEST)
        signs = [coded.char_to_token(places[role]) for role in MARKS]
        first = [coded.char_to_token(places[role] + 2) for role in MARKS]
        cut += None in signs
        ids.append(coded["input_ids"])
        markers.append([0 if at is None else at for at in signs])
        mentions.append([-1 if at is None else at for at in first])
        rows.append([index.get(one.entities[role], -1) for role in MARKS])
    answers = torch.tensor([relations.index(one.relation) for one in asked])
    return Encoded(
        ids, torch.tensor(markers), torch.tensor(mentions), torch.tensor(rows), answers, cut
    )


class FusedEncoder(nn.Module):
    """An exported encoder with its fusion before the first block, as in pre-training.

    Args:
        folder: the exported model, trained with ``fusion = "beside"`` and no ``blocks``.
        table: the entity vectors that it was trained with.
    """

    def __init__(self, folder: Path, table: VectorTable) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder)
        prefix = "kg-fusion/fusion."
        tensors = load_file(folder / "ptm_plus" / "parts.safetensors")
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        width, entity = own["entity.0.weight"].shape
        self.fusion = Fusion(self.encoder.config.hidden_size, entity, width, len(own) // 7)
        self.fusion.load_state_dict(own)
        self._table = table
        self._carried: tuple[Tensor, Tensor] | None = None
        self.encoder.encoder.layer[0].register_forward_pre_hook(self._fuse)

    def forward(self, mentions: Tensor, rows: Tensor, **given: Tensor) -> Tensor:
        """Return ``[B, L, d]`` states.

        Args:
            mentions: ``[B, 2]`` tokens that carry an entity, -1 for none.
            rows: ``[B, 2]`` rows of their vectors, -1 for none.
            **given: the encoder's arguments.
        """
        which = (mentions >= 0) & (rows >= 0)
        sequence = which.nonzero()[:, 0]
        positions = sequence * given["input_ids"].shape[1] + mentions[which]
        self._carried = positions, torch.from_numpy(unit_vectors(self._table, rows[which].numpy()))
        states: Tensor = self.encoder(**given)[0]
        return states

    def _fuse(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        assert self._carried is not None
        hidden = arguments[0]
        fused = self.fusion(0, hidden.flatten(0, 1), *self._carried)
        return (fused.view(hidden.shape), *arguments[1:])


def unit_vectors(table: VectorTable, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return vectors with a mean square of one, as kg-fusion brings them to."""
    vectors = table.gather(rows).astype(np.float32)
    size = np.sqrt(np.mean(vectors**2, axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(size, 1e-12), dtype=np.float32)


class PlainEncoder(nn.Module):
    """An exported encoder as plain transformers loads it.

    Args:
        encoder: whatever returns states from ``input_ids`` and ``attention_mask``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mentions: Tensor, rows: Tensor, **given: Tensor) -> Tensor:
        """Return ``[B, L, d]`` states; entities are not looked at."""
        output = self.encoder(**given)
        states: Tensor = output if isinstance(output, Tensor) else output[0]
        return states


def reader(how: str, folder: Path, table: VectorTable | None) -> nn.Module:
    """Return an exported encoder as an arm reads it.

    Args:
        how: ``plain``, ``fused``, or ``adapted``: encoder and both adapters, which stay frozen.
        folder: the exported model.
        table: entity vectors, for ``fused``.
    """
    if how == "fused":
        assert table is not None
        return FusedEncoder(folder, table)
    encoder = AutoModel.from_pretrained(folder)
    if how == "plain":
        return PlainEncoder(encoder)
    adapters = {name: folder / "ptm_plus" / f"k-adapter-{name}" for name in ("fac", "lin")}
    return PlainEncoder(AdaptedEncoder(encoder, adapters, freeze="adapters"))


class Classifier(nn.Module):
    """Relations off the states of the markers.

    Args:
        body: what ``reader`` returned.
        hidden: width of its states.
        relations: number of classes.
    """

    def __init__(self, body: nn.Module, hidden: int, relations: int) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(DROPOUT)
        self.out = nn.Linear(2 * hidden, relations)

    def forward(self, markers: Tensor, **given: Tensor) -> Tensor:
        """Return logits ``[B, relations]``."""
        states = self.body(**given)
        read = states[torch.arange(len(markers))[:, None], markers].flatten(1)
        logits: Tensor = self.out(self.dropout(read))
        return logits


def measure(
    how: str,
    folder: Path,
    questions: Mapping[str, Sequence[Question]],
    seed: int,
    vectors: Path | None,
) -> dict[str, Any]:
    """Fine-tune on the training questions and return the scores on the held-out ones.

    Args:
        how: how the encoder is read, see ``reader``.
        folder: the exported model.
        questions: ``train`` and ``dev``.
        seed: of the classifier, the order and dropout.
        vectors: entity vectors; also tells which questions have one.
    """
    transformers_logging.set_verbosity_error()  # that the masked-LM head is left behind is known
    transformers_logging.disable_progress_bar()
    relations = sorted({one.relation for one in questions["train"]})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    table = VectorTable.open(vectors) if vectors else None
    asked = {entity for split in questions.values() for one in split for entity in one.pair}
    index = table.index(asked) if table else {}
    coded = {name: encode(split, tokenizer, relations, index) for name, split in questions.items()}
    torch.manual_seed(seed)  # of the map that joins adapters
    body = reader(how, folder, table)
    torch.manual_seed(seed)  # of the classifier: the same for every arm
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Classifier(body, config["hidden_size"], len(relations))
    pad = int(tokenizer.pad_token_id)
    seconds = fit(model, coded["train"], pad, seed)
    predicted = predict(model, coded["dev"], pad)
    return {**scores(predicted, coded["dev"], relations), "seconds": seconds}


def fit(model: nn.Module, train: Encoded, pad: int, seed: int) -> float:
    """Fine-tune for the fixed number of epochs; return the seconds it took."""
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    steps = EPOCHS * -(-len(train.ids) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps))
    began = time.perf_counter()
    model.train()
    for _ in range(EPOCHS):
        for numbers in torch.randperm(len(train.ids), generator=order).split(BATCH):
            loss = cross_entropy(model(**batch(train, numbers, pad)), train.answers[numbers])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
    return round(time.perf_counter() - began, 1)


def _rate(steps: int, step: int) -> float:
    warm = max(1, int(WARMUP * steps))
    return min((step + 1) / warm, (steps - step) / (steps - warm))


@torch.no_grad()
def predict(model: nn.Module, asked: Encoded, pad: int) -> Tensor:
    """Return the number of the relation of each question."""
    model.eval()
    parts = torch.arange(len(asked.ids)).split(4 * BATCH)
    return torch.cat([model(**batch(asked, one, pad)).argmax(-1) for one in parts])


def batch(asked: Encoded, numbers: Tensor, pad: int) -> dict[str, Tensor]:
    """Return the arguments of ``Classifier`` for some questions, padded to the longest."""
    ids = [torch.tensor(asked.ids[number]) for number in numbers.tolist()]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(one) for one in ids])
    return {
        "input_ids": padded,
        "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long(),
        "markers": asked.markers[numbers],
        "mentions": asked.mentions[numbers],
        "rows": asked.rows[numbers],
    }


def scores(predicted: Tensor, asked: Encoded, relations: Sequence[str]) -> dict[str, Any]:
    """Return the measures, over all questions and by whether an entity has a vector."""
    right = (predicted == asked.answers).double()
    linked = (asked.rows >= 0).any(dim=1)
    names = [relations[number] for number in predicted.tolist()]
    return {
        "accuracy": float(right.mean()),
        "macro_f1": macro_f1(names, [relations[number] for number in asked.answers.tolist()]),
        "questions": len(right),
        "cut": asked.cut,
        "with_a_vector": int(linked.sum()),
        "accuracy_with_a_vector": float(right[linked].mean()) if linked.any() else None,
        "accuracy_without": float(right[~linked].mean()) if not linked.all() else None,
        "predicted": names,
    }
