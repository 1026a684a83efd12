"""The settings of a run: one pydantic model per section, unknown keys refused.

A value's way: default < settings file < command-line flag < ``--set section.key=value``
(``settings_files.py`` resolves it and remembers where each value came from).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

NotNegative = Annotated[float, Field(ge=0)]

RunShare = Annotated[float, Field(ge=0, lt=1)]
"""A point of the run: 0 is its beginning, 0.5 half of its steps."""

Course = NotNegative | tuple[tuple[RunShare, NotNegative], ...]
"""A number, or what it is from some points of the run on."""


def _course(value: Any, read: ValidatorFunctionWrapHandler) -> Course:
    """Read a course; one message for both of its forms.

    Raises:
        ValueError: it is none.
    """
    try:
        course: Course = read(value)
        starts = [start for start, _ in course] if isinstance(course, tuple) else [0.0]
        if starts[:1] == [0.0] and starts == sorted(set(starts)) and value is not True:
            return course
    except ValidationError:
        pass
    raise ValueError(
        "Input should be a number from 0 on, or [share of the run, number] pairs in order, from 0: "
        "[[0, 0.7], [0.5, 0.3]]",
    )


class Section(BaseModel):
    """Base of every settings section: unknown keys are errors, values are fixed once resolved."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``steps = true`` would become one step."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError("it has to be a number")
        return value


class ModelSettings(Section):
    """The backbone."""

    path: str = Field(
        "", description="Checkpoint folder or hub name; empty builds a model from `config`."
    )
    family: str = Field("bert", description="transformers model type when built from scratch.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Configuration values for a model built from scratch."
    )
    init_from: str = Field(
        "", description="Run folder or checkpoint whose weights (alone) the run starts with."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Hidden and attention dropout.")
    gradient_checkpointing: bool = Field(False, description="Trade compute for memory.")
    trust_remote_code: bool = Field(False, description="Run code from the model's repository.")


class TokenizerSettings(Section):
    """The tokenizer; trained on the run's own text when neither it nor a model path is given."""

    path: str = Field("", description="Tokenizer folder or hub name; default: the model's.")
    vocabulary: int = Field(16_000, ge=64, description="Size of a tokenizer trained here.")


class DataSettings(Section):
    """Inputs. Files may be compressed (.gz, .xz, .bz2); globs are allowed."""

    text: tuple[str, ...] = Field((), description="Text files; `en=file` gives the language.")
    pairs: tuple[str, ...] = Field(
        (), description="Parallel files; `en-fr=file` likewise, or `en-fr=a,b`."
    )
    kg: tuple[str, ...] = Field((), description="Triples: head, relation, tail, tab-separated.")
    labels: tuple[str, ...] = Field((), description="Names of entities, with languages.")
    links: tuple[str, ...] = Field((), description="Two ids a row that mean one entity.")
    vectors: str = Field("", description="Entity vectors (.safetensors); default: train them.")
    length_ratio: float = Field(
        3.0,
        ge=0,
        description="Refuse pairs with a half so many times longer than usual for their languages; "
        "0 none.",
    )
    duplicates: bool = Field(False, description="Use pairs that were there before once more.")
    swapped: bool = Field(
        False, description="Use pairs whose halves look as if in each other's language."
    )
    held_out: float = Field(0.02, gt=0, lt=0.5, description="Share kept for evaluation.")
    max_examples: int = Field(0, ge=0, description="Read at most this many rows per stream; 0 all.")


class LinkerSettings(Section):
    """The dictionary linker for text that comes without spans."""

    ambiguity: Literal["skip", "most_connected", "first"] = Field(
        "most_connected", description="What to do with a name of several entities."
    )
    min_length: int = Field(3, ge=1, description="Shortest name, in characters (2 for CJK).")
    lower_case: bool = Field(False, description="Also match names without an upper-case letter.")
    common_words: bool = Field(
        True,
        description="Leave out aliases of one word that the text mostly writes in lower case.",
    )


class PrepareSettings(Section):
    """From characters to sequences on disk."""

    max_length: int = Field(128, ge=8, description="Longest sequence in tokens, specials included.")
    workers: int = Field(0, ge=0, description="Processes; 0 takes the number of cores.")
    cache: str = Field("", description="Cache folder; default: the user's cache folder.")


class MaskingSettings(Section):
    """The token budget of the one mask plan."""

    rate: float = Field(0.15, gt=0, lt=1, description="Predicted share of maskable tokens.")
    final_rate: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="What the rate is at the end, after a straight line over the run (Yang et al. "
        "2023); 0 keeps it. Held-out text is always masked at `rate`.",
    )
    unit: Literal["word", "token"] = Field("word", description="Unit of the core's own kind.")

    @property
    def ends(self) -> tuple[float, float]:
        """The rate in the first step and in the last."""
        return self.rate, self.final_rate or self.rate


PASS_ROWS = 8
"""Rows of a pass where nobody says otherwise."""


class BatchSettings(Section):
    """Size and make-up of a step."""

    row_tokens: int = Field(512, ge=16, description="Tokens of a packed row.")
    rows: int = Field(8, ge=1, description="Rows per optimizer step, all processes together.")
    micro_rows: int = Field(
        PASS_ROWS,
        ge=0,
        description="Rows per forward pass of one process; 0: on a GPU as many as memory holds, "
        f"elsewhere {PASS_ROWS}.",
    )
    weights: dict[str, NotNegative] = Field(
        default_factory=dict,
        description="Rows of a stream against those of the others: `{text = 3, pairs = 1}`.",
    )
    alpha: dict[str, Annotated[Course, WrapValidator(_course)]] = Field(
        default_factory=dict,
        description="By stream: exponent α of p ∝ tokens^α among its strata; or α from shares of "
        "the run on: `{text = [[0, 0.7], [0.8, 0.5], [0.95, 0.3]]}`.",
    )
    joins: dict[str, dict[str, RunShare]] = Field(
        default_factory=dict,
        description="By stream and stratum: share of the run before it is read: "
        "`{text = {sw = 0.5}}`.",
    )
    max_epochs: float = Field(
        10.0, gt=0, description="How often a stratum may be read before `plan` warns."
    )
    exhausted: Literal["repeat", "limit"] = Field(
        "repeat",
        description="A stratum that was read whole is read again in a new order, as often as its "
        "share asks for; or at most `max_epochs` times, with a smaller share from the start.",
    )

    @property
    def evaluated_tokens(self) -> int:
        """Tokens of a pass where nothing is trained, whatever the device holds."""
        return self.row_tokens * (self.micro_rows or PASS_ROWS)


class StageSettings(Section):
    """A part of the run with an optimizer, warm-up and decay of its own; who is not named, rests.

    Of plugins that rest, the objectives and parameter rules are off and the parts frozen; what
    these write into the encoder is still written.
    """

    name: str = Field(min_length=1, description="Its name, in logs and messages.")
    share: float = Field(1.0, gt=0, description="Its share of the steps, against the others'.")
    plugins: tuple[str, ...] = Field(
        (), description="Who trains in it: plugins, and `core` for masked LM; default: everyone."
    )


class TrainSettings(Section):
    """Optimizer and schedule."""

    steps: int = Field(1000, ge=1, description="Optimizer steps.")
    optimizer: Literal["adamw", "stable-adamw", "muon"] = Field(
        "adamw",
        description="`stable-adamw` is AdamW with smaller steps of tensors whose second moment "
        "lags behind (Wortsman et al. 2023), meant for `clip = 0`; `muon` is Muon (Jordan et al. "
        "2024) for matrices of blocks and parts, and AdamW for everything else.",
    )
    lr: float = Field(5e-4, gt=0, description="Peak learning rate.")
    warmup: float = Field(0.06, ge=0, le=1, description="Share of the steps for warm-up.")
    decay: Literal["linear", "cosine", "constant", "wsd"] = Field(
        "linear",
        description="After warm-up: `linear` to zero (with warm-up the triangle of Izsak et al. "
        "2021), `cosine`, `constant`, or `wsd`: constant until `cooldown`, then to zero by 1 − √ "
        "(Hägele et al. 2024).",
    )
    cooldown: float = Field(
        0.2,
        gt=0,
        le=1,
        validate_default=True,
        description="Share of the steps, the last ones, in which `wsd` goes to zero.",
    )
    weight_decay: float = Field(
        0.01, ge=0, description="Decoupled decay; none on norms and biases."
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW betas.")
    clip: float = Field(1.0, ge=0, description="Gradient norm limit; 0 for none.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 on CUDA, fp32 elsewhere."
    )
    objective_weights: dict[str, float] = Field(
        default_factory=dict, description="Factor per objective, over its own default."
    )
    stages: tuple[StageSettings, ...] = Field(
        (), description="Parts of the run in which some train and the rest stays as it is."
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order, masks and dropout.")
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 a tenth.")
    keep: int = Field(2, ge=1, description="Newest checkpoints kept.")
    keep_best: int = Field(
        0, ge=0, description="Also keep so many with the lowest held-out loss (evaluate_every)."
    )
    keep_every: int = Field(0, ge=0, description="Also keep those of every so many steps; 0 none.")
    evaluate_every: int = Field(0, ge=0, description="Steps between evaluations; 0 only the end.")
    log_every: int = Field(10, ge=1, description="Steps between log lines.")
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice.")
    deterministic: bool = Field(False, description="Deterministic kernels on GPU.")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="Several processes: whole model in each, or sharded over them (FSDP2)."
    )

    @field_validator("cooldown")
    @classmethod
    def _after_warmup(cls, value: float, info: ValidationInfo) -> float:
        warmup = info.data.get("warmup", 0.0)
        if info.data.get("decay") == "wsd" and warmup + value > 1 + 1e-9:
            raise ValueError(
                f"with train.warmup = {warmup:g} it is more than the run; both are shares of it"
            )
        return value


class GuardSettings(Section):
    """What to do when training goes wrong."""

    nonfinite: Literal["stop", "skip", "roll_back"] = Field(
        "stop",
        description="A gradient that is not finite: stop, leave its update out, or go on from the "
        "last checkpoint with the data that come next.",
    )
    spike: Literal["ignore", "stop", "roll_back"] = Field(
        "ignore", description="A loss far above those of the steps before: likewise."
    )
    spike_size: float = Field(
        10.0, gt=0, description="How far, in median absolute deviations above the median."
    )
    spike_window: int = Field(64, ge=8, description="Steps before, that it is compared with.")
    tries: int = Field(
        3,
        ge=1,
        description="Most updates left out, or roll-backs, between two checkpoints.",
    )


class EvaluateSettings(Section):
    """What is measured beside the loss on held-out text."""

    mentions: tuple[str, ...] = Field(
        (), description="Linked sentences, each with one mention to be masked and asked for."
    )
    pairs: tuple[str, ...] = Field((), description="Pairs for translation retrieval.")
    text: tuple[str, ...] = Field(
        (), description="Text that is kept for measuring, as after `--text`; each file alone."
    )
    sequences: int = Field(
        512, ge=8, description="Most held-out sequences per stream, or file of `evaluate.text`."
    )


class RunSettings(Section):
    """Everything that a run depends on, apart from the files' contents."""

    plugins: tuple[str, ...] = Field((), description="Plugins, `name` or `name:instance`.")
    model: ModelSettings = Field(default_factory=ModelSettings)
    tokenizer: TokenizerSettings = Field(default_factory=TokenizerSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    linker: LinkerSettings = Field(default_factory=LinkerSettings)
    prepare: PrepareSettings = Field(default_factory=PrepareSettings)
    masking: MaskingSettings = Field(default_factory=MaskingSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    guards: GuardSettings = Field(default_factory=GuardSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    plugin: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="One table per plugin instance."
    )
    output: Path = Field(Path("runs/ptm-plus"), description="Run folder.")

    def with_plugin(self, instance: str, **changes: Any) -> RunSettings:
        """Return the settings with some of a plugin's own changed.

        Args:
            instance: the plugin's name in the run.
            **changes: keys of its table and their values.
        """
        table = {**self.plugin.get(instance, {}), **changes}
        return self.model_copy(update={"plugin": {**self.plugin, instance: table}})
