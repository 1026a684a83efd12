"""SentencePiece models, trained by sentencepiece and rebuilt as fast tokenizers.

Text is normalised by the fast tokenizer's own normalizer before it is trained on, and sentencepiece
normalises nothing, so that both split a text in the same way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from ptm_plus.errors import DataError, SettingsError
from ptm_plus.prepare.tokenizer_training import unknown_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"
NEVER = -10_000.0
"""Score of special tokens and of bytes by name: text that spells one is split into its letters.

Where a letter of it has no entry, the fast tokenizer takes the name after all: it ranks the unknown
below all entries, and sentencepiece does not.
"""

_LINE = 1_000
"""Characters of a line; sentencepiece skips lines of more than 4,192 bytes without a word."""

_THREADS = 2  # Sums in another order for another number: equal text must give equal scores.
_SIZES = re.compile(r"<= ?(\d+)")


def train_pieces(
    texts: Iterable[str],
    vocabulary: int,
    special: list[str],
    kind: Literal["unigram", "bpe"],
    coverage: float,
    byte_fallback: bool,
) -> Tokenizer:
    """Train SentencePiece's Unigram (Kudo 2018) or BPE (Sennrich 2016).

    Args:
        texts: the text.
        vocabulary: number of entries, special tokens and bytes included.
        special: special tokens; they get the first ids, and one of them stands for the unknown.
        kind: which of the two.
        coverage: share of the characters of the text that are known.
        byte_fallback: spell unknown characters by their bytes.

    Raises:
        SettingsError: the vocabulary is larger than the text supports, or too small for its
            characters.
        DataError: there is no text.
    """
    import sentencepiece

    lines = _Lines(texts)
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            model_type=kind,
            vocab_size=vocabulary - len(special) + 1,
            character_coverage=coverage,
            byte_fallback=byte_fallback,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=4 * _LINE + 100,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if not lines.found:
            raise DataError("there is no text to train on", "check the files") from error
        raise _explained(str(error), vocabulary, len(special) - 1) from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return rebuilt(trained, special, kind)


def rebuilt(trained: Any, special: list[str], kind: str) -> Tokenizer:
    """Return the fast tokenizer of a SentencePiece model whose only control entry is the unknown.

    Args:
        trained: a ``SentencePieceProcessor``.
        special: special tokens that stand before its entries, the unknown one among them.
        kind: ``unigram`` or ``bpe``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    unknown = unknown_token(special)
    entries = [(trained.id_to_piece(i), trained.get_score(i)) for i in range(1, len(trained))]
    named = [trained.is_byte(i) for i in range(1, len(trained))]
    byte_fallback = any(named)
    if kind == "unigram":
        scored = [(token, NEVER) for token in special]
        scored += [
            (piece, NEVER if byte else score)
            for (piece, score), byte in zip(entries, named, strict=True)
        ]
        core = Tokenizer(models.Unigram(scored, special.index(unknown), byte_fallback))
    else:
        ids = {piece: number for number, piece in enumerate([*special, *(p for p, _ in entries)])}
        core = Tokenizer(
            models.BPE(
                ids,
                _merges([piece for piece, _ in entries], ids),
                unk_token=unknown,
                fuse_unk=True,
                byte_fallback=byte_fallback,
            )
        )
    core.normalizer = _normalizer()
    core.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
    core.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return core


class _Lines:
    """Normalised text in lines that are short enough, and whether there was any."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.found = False

    def __iter__(self) -> Iterator[str]:
        normalizer = _normalizer()
        for text in self._texts:
            rest = normalizer.normalize_str(text).strip()
            while rest:
                end = len(rest)
                if end > _LINE:
                    space = rest.rfind(" ", 1, _LINE)
                    end = space if space > 0 else _LINE
                self.found = True
                yield rest[:end]
                rest = rest[end:].lstrip()


def _normalizer() -> Any:
    from tokenizers import Regex, normalizers

    return normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"[\s▁\x00]+"), " "), normalizers.Strip()]
    )


def _merges(pieces: list[str], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges that make the pieces, in the order in which they were learnt.

    The pieces are in that order; each is made of two entries, mostly in one way. In several ways,
    all are merges: whichever pair stands in a text is joined.
    """
    merges = []
    for piece in pieces:
        ways = [
            (ids[piece[:cut]], ids[piece[cut:]], piece[:cut], piece[cut:])
            for cut in range(1, len(piece))
            if piece[:cut] in ids and piece[cut:] in ids
        ]
        merges += [(left, right) for _, _, left, right in sorted(ways)]
    return merges


def _explained(reason: str, vocabulary: int, specials: int) -> SettingsError:
    most = _SIZES.search(reason)
    if "too high" in reason and most:
        return SettingsError(
            f"--vocabulary {vocabulary}: the text supports {int(most[1]) + specials} at most",
            "give more text, or a smaller --vocabulary",
        )
    if "required_chars" in reason or "too small" in reason:
        return SettingsError(
            f"--vocabulary {vocabulary}: too small for the characters of the text",
            "give a larger --vocabulary, or a smaller --coverage such as 0.995",
        )
    last = reason.strip().splitlines()[-1] if reason.strip() else "no reason given"
    return SettingsError(
        f"--vocabulary {vocabulary}: sentencepiece cannot train it: {last}",
        "give more text, or another --vocabulary",
    )
