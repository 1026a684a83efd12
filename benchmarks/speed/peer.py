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


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    made.add_argument("--mode", choices=MODES, required=True)
    made.add_argument("--corpus", required=True)
    made.add_argument("--tokenizer", required=True)
    made.add_argument("--config", type=json.loads, required=True)
    made.add_argument("--length", type=int, required=True)
    made.add_argument("--batch", type=int, required=True)
    made.add_argument("--steps", type=int, required=True)
    made.add_argument("--lr", type=float, required=True)
    made.add_argument("--warmup", type=float, required=True)
    made.add_argument("--seed", type=int, required=True)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--keep-every", type=int, default=0, help="steps between models kept")
    made.add_argument("--output", type=Path, required=True)
    return made


def arguments(given: argparse.Namespace) -> Any:
    """Return the trainer's arguments."""
    from transformers import TrainingArguments

    sampling = {"train_sampling_strategy": "group_by_length"} if given.mode == "grouped" else {}
    return TrainingArguments(
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
    )


def main() -> None:
    """Train, and write a line per step."""
    given = parser().parse_args()

    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        set_seed,
    )

    torch.set_num_threads(given.threads)
    set_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    model = BertForMaskedLM(BertConfig(**given.config))

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Writes down the CPU time after every step, and keeps the model of some."""

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            step = state.global_step
            took = {"step": step, "cpu": time.process_time(), "wall": time.perf_counter()}
            took |= {"tokens": int(state.num_input_tokens_seen)}
            with (given.output / "clock.jsonl").open("a") as file:
                file.write(json.dumps(took) + "\n")
            if given.keep_every and step % given.keep_every == 0:
                model.save_pretrained(given.output / f"model-{step}")

    trainer = Trainer(
        model=model,
        args=arguments(given),
        train_dataset=tokenised(given.mode, given.corpus, tokenizer, given.length),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        callbacks=[Clock()],
    )
    trainer.train()
    model.save_pretrained(given.output / "model")


if __name__ == "__main__":
    main()
