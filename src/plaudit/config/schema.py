"""Every setting of a training run: its name, type, bounds, default and meaning, and what must agree with what.

Part of `config`; pydantic, and nothing heavier. A model here is frozen, refuses unknown keys and guesses no types (the
text "3" is no number, true is not 1). Where a setting may be None its description says what that means, after the word
`auto:` (something is found out) or `none:` (there is no such thing); files and command lines write that word.
Invariant: a TrainConfig that exists is one that training can begin with, as far as that can be known without the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from plaudit.config.elsewhere import MODEL_ARGS, NO_USE, OWNED

NOTHING = ("auto", "none")
"""The words for None."""

LARGEST_STEP = 64
"""Groups in a step, if nobody says how many and data are plenty."""

SWITCH = {"true": "on", "yes": "on", "false": "off", "no": "off"}
"""What else people write where the choice is on or off."""


class LossName(StrEnum):
    """The losses that there are; one file each in `losses`."""

    BRADLEY_TERRY = "bradley_terry"
    LOG_EXP = "log_exp"
    HINGE = "hinge"
    ORDINAL = "ordinal"
    SCALED_BT = "scaled_bt"
    PLACKETT_LUCE = "plackett_luce"
    TOKEN_WISE = "token_wise"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Words:
    """What has to be written, where a type and its bounds do not say it."""

    needed: str


def _as_list(value: Any) -> Any:
    """One text is a list of one."""
    return (value,) if isinstance(value, str) else value


Flag = Annotated[bool, Strict(False)]
"""True or false; also yes and no, on and off, which YAML 1.2 leaves texts."""

Texts = Annotated[tuple[str, ...], Strict(False), BeforeValidator(_as_list)]
Numbers = Annotated[tuple[float, ...], Strict(False)]
Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Step = Annotated[int, Field(ge=1)]
BadRows = Annotated[str, Field(pattern=r"^(error|skip=.+)$"), Words("error or skip=PATH")]
BestBy = Annotated[
    str,
    Field(pattern=r"^(.+/)?(accuracy|loss|margin)$"),
    Words("accuracy, loss or margin, with or without NAME/ of an eval set before it,"),
]


def disagree(sentence: str) -> PydanticCustomError:
    """The error of settings that are each right and do not go together; the sentence is what the user reads."""
    return PydanticCustomError("together", "{sentence}", {"sentence": sentence})


class Section(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _read_words(cls, values: Any) -> Any:
        """The words for None where None is allowed, and true and false where the choice is on or off."""
        if not isinstance(values, dict):
            return values
        read = dict(values)
        for name, info in cls.model_fields.items():
            value, choices = read.get(name), get_args(info.annotation)
            if value in NOTHING and isinstance(value, str) and type(None) in choices:
                read[name] = None
            elif "on" in choices and isinstance(value, bool | str):
                read[name] = SWITCH.get(str(value).lower(), value)
        return read


class DataPart(Section):
    """One source of groups, and its part in the mixture. A path alone stands for a part with nothing else said."""

    path: Name = Field(description="A file, folder, glob, URL, or hub:owner/name[:config][@split].")
    weight: float = Field(
        default=1.0, gt=0, le=1000, description="Share of its groups that is taken: 0.5 is half, 2 is each twice."
    )
    name: Name | None = Field(default=None, description="What metrics call it; auto: from its path.")
    format: Name | None = Field(default=None, description="The dialect of its rows; auto: detected and said.")
    prompt_key: Name | None = Field(default=None, description="The column of the prompt; auto: the dialect's.")
    chosen_key: Name | None = Field(default=None, description="The column of the better answer; auto: the dialect's.")
    rejected_key: Name | None = Field(default=None, description="The column of the worse answer; auto: the dialect's.")
    limit: Step | None = Field(default=None, description="Groups that are read, from the beginning; none: all.")
    bad_rows: BadRows = Field(
        default="error", description="error: a bad row stops the run; skip=PATH: it is put there."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_path(cls, value: Any) -> Any:
        """A path alone."""
        return {"path": value} if isinstance(value, str) else value


def _as_parts(value: Any) -> Any:
    """One part, or one path, is a list of one."""
    return (value,) if isinstance(value, str | dict | DataPart) else value


Parts = Annotated[tuple[DataPart, ...], Strict(False), BeforeValidator(_as_parts)]


class LossConfig(Section):
    """What is minimised."""

    name: Annotated[LossName, Strict(False)] = Field(default=LossName.BRADLEY_TERRY, description="Which loss.")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="Probability that a label is wrong, as the loss is told."
    )
    center: float = Field(default=0.0, ge=0, description="Coefficient of (better + worse)²: keeps scores around zero.")
    agreement: float = Field(
        default=0.0,
        ge=0,
        description="Coefficient of (score at the closing token - score at the last)², where train.ends trains both.",
    )
    margins: Flag = Field(default=True, description="Use the margins of labels, in losses that know them.")
    mean_over: Literal["groups", "comparisons"] = Field(
        default="groups",
        description="What counts as one in a step's mean: a group, or each comparison (choice of a ranking, rating).",
    )
    annotators: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="Weight of each annotator's labels, by name; who is not named has 1."
    )
    ties: Literal["half", "drop"] = Field(default="half", description="A tie is half a win each way, or is left out.")
    attributes: Texts = Field(default=(), description="Ratings that are learned, one score each (regression).")
    attribute_weights: Numbers = Field(
        default=(), description="Their weights in the one reported score; empty: all the same."
    )

    @model_validator(mode="after")
    def _check(self) -> LossConfig:
        if self.attributes and self.name is not LossName.REGRESSION:
            raise disagree(
                f"loss.attributes came with loss.name {self.name}, which learns one score from comparisons; "
                "set loss.name=regression, or leave the attributes out"
            )
        if len(set(self.attributes)) < len(self.attributes):
            raise disagree(f"loss.attributes names one twice ({', '.join(self.attributes)}); name each once")
        weights = self.attribute_weights
        if weights and len(weights) != len(self.attributes):
            raise disagree(
                f"loss.attribute_weights has {len(weights)} numbers for {len(self.attributes)} loss.attributes; "
                "give one for each, or none at all"
            )
        if weights and not any(weights):
            raise disagree("loss.attribute_weights are all zero, so every score would be zero; weigh one at least")
        if self.label_smoothing and self.name in (LossName.REGRESSION, LossName.PLACKETT_LUCE):
            raise disagree(
                f"loss.label_smoothing={self.label_smoothing:g} came with loss.name {self.name}, which has no two "
                "sides to smooth over; leave it out, or take a loss of comparisons"
            )
        return self


Schedule = Literal[
    "cosine",
    "linear",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
    "reduce_lr_on_plateau",
    "greedy",
]


class FitConfig(Section):
    """How the loss is minimised: steps, rates, memory, and what is kept."""

    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the training data; auto: 1, and 40 for a head on fixed features."
    )
    max_steps: Step | None = Field(
        default=None, description="Optimizer steps, in place of epochs; none: as many as epochs are."
    )
    groups_per_step: Step | None = Field(
        default=None,
        description="Groups in one optimizer step, over all devices together; auto: 64, fewer where data are few.",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="Peak rate; auto: by the model's size and mode."
    )
    schedule: Schedule = Field(default="cosine", description="How the rate falls after warm-up.")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    min_rate_share: Share = Field(default=0.1, description="Where cosine and linear end, as a share of the peak rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decay of the weights, per step and unit of rate.")
    betas: Annotated[tuple[Share, Share], Strict(False)] = Field(
        default=(0.9, 0.95), description="Adam's two averages."
    )
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Gradients are scaled down to this norm; none: never."
    )
    optimizer: Name = Field(
        default="adamw_torch_fused", description="Any optimizer that TrainingArguments knows, by its name."
    )
    backbone: Literal["trained", "frozen"] = Field(
        default="trained", description="frozen: only the head learns, from features that are computed once."
    )
    ends: Literal["both", "last"] = Field(
        default="both",
        description="Where the template writes white space after the token that closes an answer: train the score at "
        "both tokens, half and half, or at the last one alone.",
    )
    budget: Step | None = Field(
        default=None, description="Tokens computed at once on a device; auto: from free memory."
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Compute activations twice instead of keeping them; auto is on where memory asks for it.",
    )
    activation_offload: Flag = Field(default=False, description="Keep activations in the host's memory meanwhile.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout everywhere in the backbone.")
    log_every: Step = Field(default=1, description="Steps between two lines of metrics.jsonl.")
    eval_every: Step | None = Field(
        default=None, description="Steps between evaluations; auto: from the length of the run."
    )
    save_every: Step | None = Field(default=None, description="Steps between checkpoints; auto: as eval_every.")
    keep: Step = Field(default=2, description="Checkpoints that are kept, besides the best.")
    patience: Step | None = Field(
        default=None, description="Evaluations without a new best before it stops; none: all steps."
    )
    best_by: BestBy = Field(
        default="accuracy", description="What chooses the best checkpoint: of the first eval set, or NAME/accuracy."
    )
    max_skipped: Step = Field(
        default=5, description="Steps in a row that may be skipped because a number was not finite."
    )

    @property
    def passes(self) -> float:
        """Epochs as they were settled."""
        return self.epochs or 1.0

    @property
    def step_size(self) -> int:
        """Groups in a step as they were settled."""
        return self.groups_per_step or LARGEST_STEP


class LoraConfig(Section):
    """Low-rank adapters in place of training every weight; the head is always trained and saved."""

    enabled: Flag | None = Field(default=None, description="Train adapters; auto: by the model's size and the machine.")
    rank: Step = Field(default=16, description="Rank of an adapter.")
    alpha: float = Field(
        default=32.0, gt=0, description="Scale of an adapter: alpha / rank, or alpha / √rank with rslora."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before an adapter.")
    targets: Texts = Field(
        default=("all-linear",),
        min_length=1,
        description="Modules that get one, by the end of their name, or all-linear.",
    )
    target_parameters: Texts = Field(default=(), description="Bare parameters that get one (experts of some mixtures).")
    modules_to_save: Texts = Field(default=(), description="Modules that are trained whole, besides the head.")
    rslora: Flag = Field(default=False, description="Scale by √rank, which keeps high ranks learning.")
    dora: Flag = Field(default=False, description="Learn direction and magnitude apart.")
    bits: Literal[4, 8] | None = Field(
        default=None, description="Bits a weight of the frozen backbone has; none: as it is."
    )
    quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="What four bits mean.")
    double_quant: Flag = Field(default=False, description="Quantize the scales of four-bit weights as well.")
    quant_storage: Literal["uint8", "float16", "bfloat16", "float32"] = Field(
        default="uint8", description="What four-bit weights are stored as; sharding wants the dtype of the rest."
    )

    @model_validator(mode="after")
    def _check(self) -> LoraConfig:
        if self.bits is not None and self.enabled is False:
            raise disagree(
                f"lora.bits={self.bits} came with lora.enabled=false, and weights of {self.bits} bits cannot be "
                "trained themselves; set lora.enabled=true, or leave lora.bits out"
            )
        return self


class RenderConfig(Section):
    """How groups become tokens."""

    max_length: Step | None = Field(
        default=None, description="Tokens of a prompt with one completion; auto: what fits."
    )
    overlength: Literal["error", "drop", "left", "right", "unscored"] = Field(
        default="drop",
        description="What is longer: stops the run, loses its group, is cut, or is left out of its group.",
    )
    plain: Flag = Field(default=False, description="Prompt + completion as plain text, without the chat template.")
    keep_system: Flag = Field(default=False, description="Cutting on the left keeps the system message.")
    chat_template: Name | None = Field(
        default=None,
        description="A Jinja file, a folder or hub name that has one, or the template itself; auto: the model's.",
    )
    eos_token: Name | None = Field(default=None, description="The token that ends a text; auto: the tokenizer's.")
    pad_token: Name | None = Field(
        default=None, description="The token that pads; auto: one that no conversation ends with."
    )


class SplitConfig(Section):
    """What training data and evaluation data may share."""

    eval_share: float = Field(
        default=0.05, ge=0, le=0.5, description="Share of the prompts set aside where no evaluation data came; 0: none."
    )
    force_overlap: Flag = Field(
        default=False, description="Go on with evaluation data that shares prompts with training data."
    )


class ChecksConfig(Section):
    """What is looked at before and while it trains."""

    enabled: Flag = Field(
        default=True, description="Alarms: surface features, few or identical pairs, loss at ln 2, overfitting."
    )


class TrainConfig(Section):
    """All of a training run."""

    model: Name = Field(description="A folder, a hub name (owner/name[@revision]), or smollm2.")
    data: Parts = Field(min_length=1, description="Training data: paths, or tables with the keys data[].*.")
    eval: Parts = Field(
        default=(), description="Evaluation data, each set with its own name; empty: a share by prompt."
    )
    out: Name = Field(description="The folder of the run.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="What the backbone computes in; auto is bfloat16 where the machine is fast at it."
    )
    device: Name | None = Field(default=None, description="cpu, cuda, cuda:1; auto: a GPU if there is one.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the order, the mixture, the split and a new head.")
    streaming: Flag = Field(default=False, description="Read training data while training, never all at once.")
    trust_remote_code: Flag = Field(default=False, description="Run code that comes with the model.")
    model_args: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of from_pretrained, by name."
    )
    head_prefix: Name | None = Field(
        default=None, description="Name of the head in the saved model; auto: the model's own."
    )
    normalise: Flag = Field(default=True, description="Store mean and spread of the scores on the evaluation data.")
    proof: Flag = Field(default=True, description="Load the saved model in a fresh process and compare its scores.")
    loss: LossConfig = Field(default_factory=LossConfig, description="What is minimised.")
    train: FitConfig = Field(default_factory=FitConfig, description="How it is minimised.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="Adapters.")
    render: RenderConfig = Field(default_factory=RenderConfig, description="Groups to tokens.")
    split: SplitConfig = Field(default_factory=SplitConfig, description="Training against evaluation data.")
    checks: ChecksConfig = Field(default_factory=ChecksConfig, description="Alarms.")
    hf: dict[str, Any] = Field(default_factory=dict, description="Any other name of TrainingArguments, passed through.")

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        for sentence in self._disagreements():
            raise disagree(sentence)
        return self

    def _disagreements(self) -> Iterator[str]:
        if self.streaming and self.train.max_steps is None:
            yield (
                "streaming=true came without train.max_steps, and nobody knows how long a stream is; "
                "set train.max_steps, or leave streaming out"
            )
        if self.train.backbone == "frozen" and self.lora.enabled:
            yield (
                "train.backbone=frozen came with lora.enabled=true, and adapters are part of the backbone; "
                "choose one of the two"
            )
        for name in self.hf:
            if name in OWNED:
                yield f"hf.{name} came, which {OWNED[name]} decides here; set {OWNED[name]} instead"
            if name in NO_USE:
                yield f"hf.{name} came, which has no use here: {NO_USE[name]}; leave it out"
        for name in self.model_args:
            if name in MODEL_ARGS:
                yield f"model_args.{name} came, and {MODEL_ARGS[name]}; leave it out"
        if self.train.patience is not None and not self.eval and self.split.eval_share == 0:
            yield (
                f"train.patience={self.train.patience} came without evaluation data and with split.eval_share=0, so "
                "nothing tells when to stop; name evaluation data, or leave train.patience out"
            )
