"""What a loss is told: the settings of `config.loss`, and what it has to know of the training data.

First file of `losses`. The rules for the settings are those of `config`, which has them once; a LossSettings that
exists keeps them. What is known of the data is filled in by `fit_loss`. Invariant: two runs with equal settings weigh
and grade the same labels alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from pydantic import ValidationError

from plaudit.config.complaints import Said, tell_errors
from plaudit.config.schema import LossConfig, LossName
from plaudit.config.settled import build_config
from plaudit.errors import ConfigError

NO_RUN = {"model": "-", "data": ("-",), "out": "-"}
"""Settings are judged as part of a run; these stand in for the rest of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """The settings of `config.loss` under the same names; below them, what `fit_loss` found in the data.

    `means` and `spreads` are those of the ratings, one an attribute. `strength_unit` is the margin that `scaled_bt`
    weighs as one. `cuts` part margins into the grades of `ordinal`, and `grade_shares` is how often each grade occurs,
    the tie first.
    """

    name: LossName = LossName.BRADLEY_TERRY
    label_smoothing: float = 0.0
    center: float = 0.0
    agreement: float = 0.0
    margins: bool = True
    mean_over: Literal["groups", "comparisons"] = "groups"
    annotators: Mapping[str, float] = field(default_factory=dict)
    ties: Literal["half", "drop"] = "half"
    attributes: tuple[str, ...] = ()
    attribute_weights: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    spreads: tuple[float, ...] = ()
    strength_unit: float = 1.0
    cuts: tuple[float, ...] = ()
    grade_shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        told = {name: getattr(self, name) for name in LossConfig.model_fields if name != "annotators"}
        told |= {f"annotators.{name}": weight for name, weight in self.annotators.items()}
        values = {f"loss.{name}": value for name, value in told.items()}
        said = {key: Said(value=value, origin="Python", place="LossSettings") for key, value in values.items()}
        try:
            config = build_config(NO_RUN | values)
        except ValidationError as error:
            raise ConfigError(tell_errors(error, said)) from None
        object.__setattr__(self, "name", config.loss.name)  # text becomes the name that it spells

    @classmethod
    def from_config(cls, config: LossConfig) -> Self:
        """The settings of a run, nothing known of its data yet."""
        return cls(**{name: getattr(config, name) for name in type(config).model_fields})

    @property
    def num_scores(self) -> int:
        """Scores of a completion: one, or one an attribute."""
        return max(1, len(self.attributes))

    @property
    def num_grades(self) -> int:
        """Grades of a preference; the tie is none of them."""
        return len(self.cuts) + 1

    def weight_of(self, by: str | None) -> float:
        """What a label by this annotator counts; a name like ann3/clarity is ann3's, if nobody weighed it itself."""
        if by is None:
            return 1.0
        return float(self.annotators.get(by, self.annotators.get(by.rpartition("/")[0], 1.0)))

    def score_weights(self) -> tuple[float, ...]:
        """What each score of a completion counts in the one that is reported."""
        return self.attribute_weights or (1 / self.num_scores,) * self.num_scores

    def card(self) -> dict[str, Any]:
        """What differs from the defaults, as plain data for a checkpoint's card; the name is always there."""
        plain = LossSettings()
        told = {f.name for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)}
        found = {key: value for key, value in asdict(self).items() if key in told or key == "name"}
        return {k: list(v) if isinstance(v, tuple) else str(v) if k == "name" else v for k, v in found.items()}
