"""The other side of preparing: `datasets` with the same tokenizer, which does nothing but that.

    python -m benchmarks.speed.tokenised --text rows.jsonl --tokenizer DIR …

Texts become pieces of at most so many tokens, in batches, as users write it. No words, no offsets,
no entities, no record of what was refused.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def main() -> None:
    """Tokenise, and print how many tokens that made."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--cache", required=True)
    given = parser.parse_args()

    import pyarrow.compute
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)

    def encode(rows: dict[str, list[str]]) -> Any:
        return tokenizer(
            rows["text"],
            truncation=True,
            max_length=given.length,
            return_overflowing_tokens=True,
        )

    raw = load_dataset("json", data_files={"train": given.text}, cache_dir=given.cache)["train"]
    workers = given.workers if given.workers > 1 else None
    made = raw.map(encode, batched=True, remove_columns=raw.column_names, num_proc=workers)
    lengths = pyarrow.compute.list_value_length(made.data.column("input_ids"))
    print(json.dumps({"tokens": pyarrow.compute.sum(lengths).as_py()}))


if __name__ == "__main__":
    main()
