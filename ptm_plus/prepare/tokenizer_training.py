"""Small tokenizers for models that are trained from scratch; equal text gives equal tokenizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ptm_plus.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

MAX_CHARACTERS = 50_000_000
"""Text beyond this many characters is not looked at."""

# Ids as in the published models: RoBERTa's and XLM-R's padding is 1, positions depend on it.
_BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
_SENTENCE_MARKS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert"})
_BYTE_LEVEL = frozenset({"roberta", "modernbert", "eurobert"})
_PRINTABLE = [chr(code) for code in range(33, 127)]
# Below this size the whole of ASCII would crowd out the words.
_ROOM_FOR_ASCII = 1000


def train_tokenizer(texts: Iterable[str], vocabulary: int, family: str) -> PreTrainedTokenizerFast:
    """Train a tokenizer in the manner of a model family.

    BERT and others get WordPiece that keeps case and accents and separates Chinese characters;
    RoBERTa and ModernBERT byte-level BPE; XLM-R BPE over Metaspace words (a Unigram takes some
    twenty times as long to train).

    Args:
        texts: text of all languages, well mixed (see ``MAX_CHARACTERS``).
        vocabulary: number of entries, special tokens included; small texts yield fewer.
        family: transformers model type, such as ``"bert"`` or ``"xlm-roberta"``.

    Raises:
        DataError: the texts hold nothing.
    """
    sample, special = _sample(texts), special_tokens(family)
    if family in _BYTE_LEVEL:
        core = byte_level(sample, vocabulary, special)
    elif family in _SENTENCE_MARKS:
        core = _metaspace(sample, vocabulary, special)
    else:
        core = word_piece(sample, vocabulary, special)
    return finished(core, family)


def special_tokens(family: str) -> list[str]:
    """Return a family's special tokens, in the order of their ids from 0."""
    return list(_names(family).values())


def unknown_token(special: Sequence[str]) -> str:
    """Return the one of a family's special tokens that stands for what has no piece."""
    return next(token for token in special if "unk" in token.lower())


def finished(core: Tokenizer, family: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the special tokens and the layout of a family.

    Args:
        core: a tokenizer whose first entries are the family's :func:`special_tokens`.
        family: transformers model type.
    """
    names = _names(family)
    core.add_special_tokens(list(names.values()))
    core.post_processor = _post_processor(core, names)
    return _wrap(core, names, two_types=names is _BERT_TOKENS and family not in _BYTE_LEVEL)


def _names(family: str) -> dict[str, str]:
    return _ROBERTA_TOKENS if family in _SENTENCE_MARKS else _BERT_TOKENS


def byte_level(texts: Iterable[str], vocabulary: int, special: list[str]) -> Tokenizer:
    """Train BPE over bytes; every text has its pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer=trainer)
    return core


def _metaspace(texts: list[str], vocabulary: int, special: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    core = Tokenizer(models.BPE(unk_token=unknown_token(special)))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")]
    )
    core.decoder = decoders.Metaspace()
    alphabet = ["▁", *_alphabet(texts, vocabulary // 3 - 1, vocabulary)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        min_frequency=2,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer=trainer)
    return core


def word_piece(
    texts: list[str], vocabulary: int, special: list[str], alphabet: list[str] | None = None
) -> Tokenizer:
    """Train BERT's WordPiece, with case and accents.

    Args:
        texts: the text.
        vocabulary: number of entries.
        special: special tokens; they get the first ids.
        alphabet: characters that are known, sorted; by default the most frequent ones.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    core = Tokenizer(models.WordPiece(unk_token=unknown_token(special)))
    core.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    if alphabet is None:
        alphabet = _alphabet(texts, vocabulary // 6, vocabulary)
    # The trainer numbers continuations in the order of a hash table, a new one in every process,
    # and breaks ties between merges by number. Named beforehand they have fixed numbers.
    continuations = [f"##{character}" for character in alphabet if inside_words(character)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*special, *continuations],
        min_frequency=2,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer=trainer)
    whole = Tokenizer(models.WordPiece(core.get_vocab(), unk_token=unknown_token(special)))
    whole.normalizer, whole.pre_tokenizer = core.normalizer, core.pre_tokenizer
    whole.decoder = core.decoder
    whole.add_special_tokens(special)
    return whole


def _alphabet(texts: list[str], size: int, vocabulary: int) -> list[str]:
    """Return the most frequent characters, in a fixed order."""
    from tokenizers import normalizers

    compose = normalizers.NFC()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
        counts.update(set(compose.normalize_str(text)) - set(text))
    if vocabulary >= _ROOM_FOR_ASCII:
        counts.update(dict.fromkeys(_PRINTABLE, len(counts) + counts.total()))
    frequent = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted([one for one in frequent if one.isprintable() and not one.isspace()][:size])


def inside_words(character: str) -> bool:
    """Return whether BERT's pre-tokenizer can leave a character after another one in a word."""
    return character.isalnum() and not "\u4e00" <= character <= "\u9fff"


def _post_processor(core: Tokenizer, names: dict[str, str]) -> Any:
    from tokenizers.processors import TemplateProcessing

    cls, sep = names["cls"], names["sep"]
    if names is _ROBERTA_TOKENS:
        pair = f"{cls} $A {sep} {sep} $B {sep}"
    else:
        pair = f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1"
    special = [(token, core.token_to_id(token)) for token in (cls, sep)]
    return TemplateProcessing(single=f"{cls} $A {sep}", pair=pair, special_tokens=special)


def _wrap(core: Tokenizer, names: dict[str, str], *, two_types: bool) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    types = ["token_type_ids"] if two_types else []
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_input_names=["input_ids", *types, "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": token for name, token in names.items()},
    )


def _sample(texts: Iterable[str]) -> list[str]:
    sample, size = [], 0
    for text in texts:
        sample.append(text)
        size += len(text)
        if size >= MAX_CHARACTERS:
            break
    if not any(text.strip() for text in sample):
        raise DataError("there is no text to train a tokenizer on", "check the text inputs")
    return sample
