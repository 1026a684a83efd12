"""Whether a language code is one, and which one was probably meant."""

from __future__ import annotations

import difflib
from functools import cache, lru_cache
from typing import Any

from ptm_plus.errors import DataError
from ptm_plus.knowledge.labels import standard_language


@lru_cache(maxsize=4096)
def valid_language(tag: str) -> str:
    """Return a tag in its standard form, if its parts are in the registry of BCP 47.

    Raises:
        DataError: they are not; the hint names the nearest code that is.
    """
    import langcodes

    standard = standard_language(tag)
    if langcodes.tag_is_valid(standard):
        return standard
    meant = _meant(tag)
    raise DataError(
        f"{tag!r} is not a language code of BCP 47",
        f"did you mean {meant!r}? codes are like en, fr, zh-Hant" if meant else "write en, zh-Hant",
    )


@cache
def language_identifier(*, probabilities: bool) -> Any:
    """Return py3langid's identifier, whose model lies in its package.

    Args:
        probabilities: whether it gives probabilities, or logarithms of likelihoods.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=probabilities)


def _meant(tag: str) -> str:
    """Return the nearest code: the language of a country's code, or one spelt much alike."""
    import langcodes
    from babel import Locale

    first, *rest = tag.split("-")
    if first.upper() in Locale("en").territories:  # cz, jp and dk are countries
        first = langcodes.Language.get(f"und-{first.upper()}").maximize().language
    elif not langcodes.tag_is_valid(first):
        known = [code for code in Locale("en").languages if "_" not in code]
        first = next(iter(difflib.get_close_matches(first.lower(), known, 1, 0.5)), "")
    meant = "-".join([first, *rest]) if first else ""
    return next((one for one in (meant, first) if one and langcodes.tag_is_valid(one)), "")
