"""The readers under a coverage-guided fuzzer: bytes that reach new code are kept and changed again.

    pip install atheris
    python -m benchmarks.fuzz_atheris CORPUS -max_total_time=600 -max_len=4096

The first byte of an input chooses the reader, the others are the file. Valid documents are put into
the folder CORPUS first. The options are those of libFuzzer; it stops at the first violation and
writes the input to a file.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ptm_plus"]):
    from benchmarks.fuzzing.cases import make_case, run_case
    from benchmarks.fuzzing.readers import READERS

_NAMES = list(READERS)
_COMPANIONS = {name: make_case(reader, 0, 0) for name, reader in READERS.items()}


def write_corpus(corpus: Path) -> None:
    """Write some inputs of each reader, valid and spoilt, as files to start from."""
    corpus.mkdir(parents=True, exist_ok=True)
    for chosen, (name, reader) in enumerate(READERS.items()):
        for number in range(40):
            files = make_case(reader, 0, number)
            content = bytes([chosen]) + next(iter(files.values()))
            if next(iter(files)) == next(iter(_COMPANIONS[name])):
                (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)


def main() -> None:
    """Run the fuzzer from the command line."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

    def one_input(data: bytes) -> None:
        name = _NAMES[data[0] % len(_NAMES)] if data else _NAMES[0]
        first, *_ = _COMPANIONS[name]
        outcome = run_case(READERS[name], {**_COMPANIONS[name], first: data[1:]}, folder / "case")
        if outcome.violation:
            raise RuntimeError(f"{name}: {outcome.violation}")

    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            write_corpus(Path(argument))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
