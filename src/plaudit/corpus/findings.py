"""What there is to say of data before anything is learned from them: notes to read, and alarms to act upon.

Part of `corpus`, above `sift`. A note tells what was done or how much there is; an alarm names what endangers the
result. Invariant: every sentence carries its numbers, and the same data give the same sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.corpus.sift import Ledger, Sifted, count_of
from plaudit.surface import ALARMING, FEWEST_COMPARISONS, FEWEST_PROMPTS, SurfaceReport, measure_surface

FEW_PAIRS = 2_000
"""Below this many, a reward model rarely learns more than length and tone."""

FEW_EVALUATED = 200
"""Below this many, the accuracy of two models cannot be told apart."""

TRAINING = "training data"
MANY_COPIES, MANY_CONTRADICTIONS = 0.1, 0.05


def find_repetition(ledger: Ledger) -> tuple[list[str], list[str]]:
    """Notes and alarms on what came twice, or both ways."""
    notes: list[str] = []
    alarms: list[str] = []
    if copies := ledger.num_copies:
        said = (
            f"{TRAINING}: {count_of(copies, 'group')} of {ledger.num_groups:,} came before, the same to the letter, "
            "and count twice; take copies out, or give a part a weight"
        )
        (alarms if copies > MANY_COPIES * ledger.num_groups else notes).append(said)
    contradicted, disputed = ledger.count_conflicts()
    if contradicted:
        said = (
            f"{TRAINING}: {count_of(contradicted, 'pair')} of {ledger.num_pairs:,} are judged both ways in different "
            "rows; they are kept, and teach that neither is better"
        )
        (alarms if contradicted > MANY_CONTRADICTIONS * ledger.num_pairs else notes).append(said)
    if disputed:
        notes.append(
            f"{TRAINING}: labellers disagree on {count_of(disputed, 'pair')} of {ledger.num_pairs:,}; "
            "all labels are kept"
        )
    return notes, alarms


def find_surface(sifted: Sequence[Sifted], name: str, seed: int) -> tuple[SurfaceReport | None, list[str], list[str]]:
    """How far labels can be read off the surface, and what to say about it."""
    report = measure_surface([one.group for one in sifted], seed=seed)
    if report is None:
        return None, [too_few(name)], []
    if report.is_alarming:
        alarm = (
            f"{name}: the label can be read off the surface: {report.sentence()}; a model that is trained on this "
            "learns the look and not the answer, so make chosen and rejected look alike, or collect other pairs"
        )
        return report, [], [alarm]
    return report, [f"{name}: {report.sentence()}"], []


def too_few(name: str) -> str:
    """Why the surface was not looked at."""
    return (
        f"{name}: whether looks alone tell the better completion was not checked, which takes {FEWEST_COMPARISONS} "
        f"comparisons on {FEWEST_PROMPTS} prompts (the alarm is above {ALARMING:.0%})"
    )


def find_scarcity(num_pairs: int) -> list[str]:
    """A note where training data are few."""
    if num_pairs >= FEW_PAIRS:
        return []
    return [
        f"{TRAINING}: {count_of(num_pairs, 'pair')} that {'is' if num_pairs == 1 else 'are'} compared, "
        f"fewer than {FEW_PAIRS:,}; expect a model that knows length and tone before it knows right from wrong"
    ]


def find_uncertainty(sifted: Sequence[Sifted], name: str) -> list[str]:
    """A note where an evaluation set is too small to tell much: by prompt, as answers to one prompt go together."""
    num_pairs = sum(one.num_pairs for one in sifted)
    num_prompts = len({one.prompt for one in sifted})
    certain = min(num_prompts, num_pairs)
    if certain >= FEW_EVALUATED or certain == 0:
        return []
    return [
        f"{name}: {count_of(num_pairs, 'compared pair')} on {count_of(num_prompts, 'prompt')}, so an accuracy "
        f"measured on it is uncertain by up to {min(50.0, 98 / certain**0.5):.0f} points"
    ]
