"""``tokenizer train``, ``report`` and ``extend``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptm_plus.bar_chart import check_suffix
from ptm_plus.cli.flags import Names, OutputFlags, spread
from ptm_plus.cli.outlet import open_outlet, stoppable
from ptm_plus.errors import SettingsError, nearest

app = typer.Typer(
    help="Tokenizers: train one, see what it does to each language, add to its vocabulary.",
    no_args_is_help=True,
)

Text = Annotated[Names, typer.Option("--text", metavar="FILE", help="Text; en=FILE. Repeatable.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")]
Characters = Annotated[
    int,
    typer.Option("--characters", metavar="N", min=1, help="How much of the text is looked at."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the draw of text.")]

_UNITS = ("characters", "words")
_STARTS = ("mean", "overlap")


@app.command()
@spread
def train(
    context: typer.Context,
    output: Output,
    out: OutputFlags,
    text: Text = None,
    family: Annotated[
        str, typer.Option("--family", metavar="NAME", help="Model type; gives special tokens.")
    ] = "xlm-roberta",
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="NAME",
            help="unigram, bpe, wordpiece or byte-bpe; default: the family's.",
            show_default=False,
        ),
    ] = "",
    vocabulary: Annotated[
        int,
        typer.Option("--vocabulary", metavar="N", min=64, help="Entries, special tokens included."),
    ] = 16_000,
    alpha: Annotated[
        float,
        typer.Option("--alpha", min=0.0, max=1.0, help="Languages are drawn as size^ALPHA."),
    ] = 0.5,
    by: Annotated[
        str, typer.Option("--by", metavar="UNIT", help="Size in characters or words.")
    ] = "characters",
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage",
            min=0.5,
            max=1.0,
            help="Share of the characters that get a piece (0.9995).",
            show_default=False,
        ),
    ] = None,
    byte_fallback: Annotated[
        bool, typer.Option("--byte-fallback", help="Spell all other characters by bytes.")
    ] = False,
    characters: Characters = 10_000_000,
    seed: Seed = 0,
) -> None:
    """Train a tokenizer on text of several languages.

    ptm-plus tokenizer train --text en=en.txt --text sw=sw.txt -o tokenizer

    Use it: ptm-plus train --set tokenizer.path=tokenizer ...
    """
    outlet = open_outlet(context, out)
    _one_of("--by", by, _UNITS)
    from ptm_plus.cli.tokenizer_tables import training_table
    from ptm_plus.vocabulary.folders import check_new, new_folder, write_tokenizer
    from ptm_plus.vocabulary.training import Training
    from ptm_plus.vocabulary.training import train as train_on

    given: dict[str, Any] = {"kind": kind, "unit": by}
    request = Training(
        text=tuple(text or ()),
        family=family,
        vocabulary=vocabulary,
        alpha=alpha,
        coverage=coverage or 0.0,
        byte_fallback=byte_fallback,
        characters=characters,
        seed=seed,
        **given,
    )
    with stoppable("training"):
        check_new(output)
        tokenizer, figures = train_on(request, outlet.watch)
        with new_folder(output) as draft:
            write_tokenizer(tokenizer, tokenizer.backend_tokenizer, draft)
    document = {"output": str(output), **figures}
    outlet.show(document, lambda: training_table(document))


@app.command()
@spread
def report(
    context: typer.Context,
    tokenizers: Annotated[
        list[str], typer.Argument(metavar="TOKENIZER...", help="Folder or hub name; one or two.")
    ],
    out: OutputFlags,
    text: Text = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also as a picture (.svg).")
    ] = None,
    characters: Characters = 10_000_000,
    seed: Seed = 0,
) -> None:
    """Show what a tokenizer does to the text of each language; two of them side by side.

    ptm-plus tokenizer report old new --text en=en.txt --text sw=sw.txt --plot fertility.svg
    """
    outlet = open_outlet(context, out)
    if len(tokenizers) > 2:
        raise SettingsError(f"{len(tokenizers)} tokenizers", "give one, or two to compare")
    check_suffix(plot)
    from ptm_plus.cli.tokenizer_tables import report_table
    from ptm_plus.vocabulary.plot import write_plot
    from ptm_plus.vocabulary.reporting import make_report

    with stoppable("measuring"):
        document = make_report(tokenizers, tuple(text or ()), characters, seed, outlet.watch)
        if plot is not None:
            write_plot(document, plot)
    outlet.show(document, lambda: report_table(document))


@app.command()
@spread
def extend(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model or tokenizer: folder or hub name.")
    ],
    output: Output,
    out: OutputFlags,
    text: Text = None,
    words: Annotated[
        Path | None, typer.Option("--words", metavar="FILE", help="New words, one a line.")
    ] = None,
    pieces: Annotated[
        int,
        typer.Option("--pieces", metavar="N", min=1, help="Most entries chosen by the text."),
    ] = 1_000,
    at_least: Annotated[
        int, typer.Option("--at-least", metavar="N", min=1, help="How often one must occur.")
    ] = 5,
    start: Annotated[
        str,
        typer.Option(
            "--start", metavar="NAME", help="New rows: mean of the old pieces, or overlap."
        ),
    ] = "mean",
    tokenizer_only: Annotated[
        bool, typer.Option("--tokenizer-only", help="Leave the model alone.")
    ] = False,
    characters: Characters = 10_000_000,
    seed: Seed = 0,
) -> None:
    """Add words, or a new language's pieces, to a vocabulary; no old id moves.

    ptm-plus tokenizer extend xlm-r --text sw=sw.txt --pieces 2000 -o xlm-r-sw

    Where there is a model, its embeddings get rows for the new entries.
    """
    outlet = open_outlet(context, out)
    _one_of("--start", start, _STARTS)
    from ptm_plus.cli.tokenizer_tables import extension_table
    from ptm_plus.vocabulary.extension import Extension
    from ptm_plus.vocabulary.extension import extend as extend_by

    given: dict[str, Any] = {"start": start}
    request = Extension(
        source=source,
        text=tuple(text or ()),
        words=words,
        pieces=pieces,
        at_least=at_least,
        characters=characters,
        tokenizer_only=tokenizer_only,
        seed=seed,
        **given,
    )
    with stoppable("extending"):
        document = extend_by(request, output, outlet.watch)
    outlet.show(document, lambda: extension_table(document))


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{flag} {value}: unknown{nearest(value, known)}", " or ".join(known))
