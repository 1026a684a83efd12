"""The other side: masked language modelling as transformers' own example does it.

    python -m benchmarks.speed.peer --mode lines --corpus lines.txt --tokenizer DIR …

Stock ``Trainer`` and ``DataCollatorForLanguageModeling``, in the three ways of the example: line by
line, padded to the longest of the batch; the same with lines of like length together; and text
joined and cut into blocks, which lets a text see its neighbours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

MODES = ("lines", "grouped", "blocks")


def tokenised(mode: str, corpus: str, tokenizer: Any, length: int) -> Any:
    """Return the training set of a mode."""
    from datasets import load_dataset

    raw = load_dataset("text", data_files={"train": corpus})["train"]
    raw = raw.filter(lambda row: bool(row["text"].strip()))

    def encode(rows: dict[str, list[str]]) -> Any:
        cut = {"truncation": True, "max_length": length} if mode != "blocks" else {}
        return tokenizer(rows["text"], return_special_tokens_mask=True, **cut)

    def join(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        whole = {name: list(itertools.chain(*values)) for name, values in rows.items()}
        size = len(whole["input_ids"]) // length * length
        return {
            name: [values[at : at + length] for at in range(0, size, length)]
            for name, values in whole.items()
        }

    found = raw.map(encode, batched=True, remove_columns=["text"])
    return found.map(join, batched=True) if mode == "blocks" else found


def main() -> None:
    """Train, and write a line per logged step."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--warmup", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()

    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(given.threads)
    set_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    model = BertForMaskedLM(BertConfig(**given.config))

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Writes down the CPU time after every step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            took = {"step": state.global_step, "cpu": time.process_time()}
            took |= {"wall": time.perf_counter(), "tokens": int(state.num_input_tokens_seen)}
            with (given.output / "clock.jsonl").open("a") as file:
                file.write(json.dumps(took) + "\n")

    sampling = {"train_sampling_strategy": "group_by_length"} if given.mode == "grouped" else {}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(given.output),
            max_steps=given.steps,
            per_device_train_batch_size=given.batch,
            learning_rate=given.lr,
            warmup_steps=given.warmup,
            weight_decay=0.01,
            adam_beta2=0.98,
            include_num_input_tokens_seen="non_padding",
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=given.seed,
            **sampling,
        ),
        train_dataset=tokenised(given.mode, given.corpus, tokenizer, given.length),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        callbacks=[Clock()],
    )
    trainer.train()
    model.save_pretrained(given.output / "model")


if __name__ == "__main__":
    main()
