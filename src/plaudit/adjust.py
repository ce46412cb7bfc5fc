"""What measuring found out about a model, kept in its folder: how sure a gap of scores makes, and what length is worth.

Stands on `checkpoint` and `measure`, above `score`; no torch. `plaudit eval` stores it, whoever reads scores may ask
for it. Invariant: a raw score is never changed; plaudit.json is the old one or the complete new one; what was found out
about weights does not outlive a training of them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.checkpoint import CARD, read_card
from plaudit.errors import InputError, ModelError
from plaudit.files import write_file
from plaudit.group import Group

if TYPE_CHECKING:
    from plaudit.measure import LengthFit

CALIBRATION, LENGTH_CORRECTION = "calibration", "length_correction"
FINDINGS = (CALIBRATION, LENGTH_CORRECTION)
"""What plaudit.json holds that was measured after training, and that no score depends on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """By what a gap of two scores is divided before it is read as log odds, and what that was fitted on."""

    temperature: float
    comparisons: int = 0
    data: Mapping[str, str | None] = field(default_factory=dict)

    def probability(self, score: float, other: float) -> float:
        """How likely the completion with `score` is the better one of the two."""
        odds = (score - other) / self.temperature
        # Written for either sign, as exp of a large number overflows.
        return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))

    def as_json(self) -> dict[str, Any]:
        """As plaudit.json keeps it."""
        return {"temperature": self.temperature, "comparisons": self.comparisons, "data": dict(self.data)}


def read_calibration(card: Mapping[str, Any], where: Path) -> Calibration:
    """What plaudit.json says of probabilities; a sentence where it says nothing that can be used."""
    found = card.get(CALIBRATION)
    if found is None:
        raise ModelError(
            f"{where}: no temperature is stored there, and without one a gap of scores is no probability; "
            f"fit one with: plaudit eval {where} DATA --calibrate --out DIR"
        )
    temperature = found.get("temperature") if isinstance(found, Mapping) else None
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ModelError(
            f"{where / CARD}: the temperature {temperature!r} came, a number over 0 was needed; fit it again with: "
            f"plaudit eval {where} DATA --calibrate --out DIR"
        )
    return Calibration(
        temperature=float(temperature), comparisons=int(found.get("comparisons") or 0), data=found.get("data") or {}
    )


def read_length_fit(card: Mapping[str, Any], where: Path) -> LengthFit:
    """What plaudit.json says length is worth; a sentence where it says nothing that can be used."""
    found = card.get(LENGTH_CORRECTION)
    if found is None:
        raise ModelError(
            f"{where}: no length correction is stored there; "
            f"fit one with: plaudit eval {where} DATA --fit-length --out DIR"
        )
    from plaudit.measure import LengthFit

    try:
        return LengthFit.from_json(found)
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{where / CARD}: its length correction cannot be read; fit it again with: "
            f"plaudit eval {where} DATA --fit-length --out DIR"
        ) from None


def correct_scores(fit: LengthFit, group: Group, scores: Sequence[float | None]) -> list[float | None]:
    """Scores as they would be if all answers were equally long; None stays None."""
    return [
        None if score is None else float(fit.correct(score, len(completion.text)))
        for score, completion in zip(scores, group.completions, strict=True)
    ]


def check_storable(name: str, wanted: Sequence[str]) -> None:
    """InputError unless the model is a folder of the user's own that can be written; said before anything is scored."""
    if not wanted:
        return
    flags = " and ".join(f"--{word}" for word in wanted)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"{flags} stores what is fitted in the model's folder, and {name} is no folder; "
            f"make one of it with: plaudit export {name} --out FOLDER"
        )
    if not os.access(folder, os.W_OK):
        raise InputError(
            f"{flags} stores what is fitted in {folder}, which cannot be written; copy the model to a place of your own"
        )


def store_findings(folder: Path, found: Mapping[str, Any]) -> Path:
    """Put `found` into the folder's plaudit.json, beside what is there."""
    file = folder / CARD
    try:
        write_file(file, json.dumps(read_card(folder) | dict(found), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(
            f"{file}: what was fitted cannot be stored there ({error.strerror}); mend that, and run the same command "
            "again: what is scored is kept"
        ) from None
    return file


def forget_findings(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card without what was found out about these weights: for other weights, or to see what scores depend on."""
    return {name: value for name, value in card.items() if name not in FINDINGS}
