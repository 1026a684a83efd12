"""The loss of a trained model on text that it never saw, with masks that are the same for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptm_plus.pretrained import without_bars


def held_out_loss(model: Path, tokenizer: Path, lines: Path, length: int, seed: int = 0) -> float:
    """Return the mean cross-entropy of masked tokens, in nats.

    Every line is read alone, as plain transformers does; 15 % of its tokens are ``[MASK]``.

    Args:
        model: folder of a masked-language model.
        tokenizer: its tokenizer.
        lines: one text a line.
        length: longest sequence.
        seed: of the masks.
    """
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    with without_bars():
        encoder = AutoModelForMaskedLM.from_pretrained(model).eval()
    encode = AutoTokenizer.from_pretrained(tokenizer)
    rng = np.random.default_rng(seed)
    total, count = 0.0, 0
    for line in lines.read_text(encoding="utf-8").splitlines():
        given = encode(line, truncation=True, max_length=length, return_tensors="pt")
        ids = given["input_ids"]
        inner = np.arange(1, ids.shape[1] - 1)
        chosen = rng.permutation(inner)[: max(1, round(0.15 * len(inner)))]
        labels = torch.full_like(ids, -100)
        labels[0, chosen] = ids[0, chosen]
        ids = ids.clone()
        ids[0, chosen] = encode.mask_token_id
        with torch.no_grad():
            loss = encoder(
                input_ids=ids, attention_mask=given["attention_mask"], labels=labels
            ).loss
        total += float(loss) * len(chosen)
        count += len(chosen)
    return total / count
