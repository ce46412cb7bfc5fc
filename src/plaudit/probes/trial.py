"""Groups to score: every prompt with its answer, the other answers, and all edits of the answer.

Part of `probes`, above the driver. Invariant: a trial's own completions come first, the edited answer before the
others, and what an edit drew by lot depends on prompt, probe and seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from plaudit.group import Completion, Group
from plaudit.keys import digest_texts, draw_lot
from plaudit.probes.probe import Probe, Staged
from plaudit.probes.sample import Row, write_answer

Score = float | None


@dataclass(kw_only=True, slots=True)
class Trial:
    """A Group, how many of its completions are its own (the rest are edits), and its scores once they are there.

    `edits` says which completion a probe made of the first one; `recasts` holds the Group's own in another form.
    """

    group: Group
    question: str
    num_own: int
    edits: dict[str, int] = field(default_factory=dict)
    recasts: dict[str, Trial] = field(default_factory=dict)
    scores: Sequence[Score] = ()

    def all_trials(self) -> Iterator[Trial]:
        """The trial itself and its recasts: everything to score."""
        yield self
        yield from self.recasts.values()


def build_trials(rows: Sequence[Row], probes: Sequence[Probe], seed: int) -> list[Trial]:
    """One trial a row."""
    return [_build_trial(row, probes, seed) for row in rows]


def _build_trial(row: Row, probes: Sequence[Probe], seed: int) -> Trial:
    completions, edits = list(row.completions), {}
    for probe in probes:
        if probe.edit is None:
            continue
        rng = random.Random(draw_lot(seed, "probes", digest_texts([probe.name]), row.key))
        text = probe.edit(row.case, rng)
        if text is not None:
            edits[probe.name] = len(completions)
            completions.append(write_answer(row.completions[0], text))
    own = Group(prompt=row.prompt, completions=row.completions)
    recasts = {p.name: _build_recast(row, own, p) for p in probes if p.recast is not None}
    return Trial(
        group=Group(prompt=row.prompt, completions=tuple(completions)),
        question=row.case.prompt,
        num_own=len(row.completions),
        edits=edits,
        recasts={name: trial for name, trial in recasts.items() if trial is not None},
    )


def _build_recast(row: Row, own: Group, probe: Probe) -> Trial | None:
    group = probe.recast(own) if probe.recast is not None else None
    if group is None:
        return None
    return Trial(group=group, question=row.case.prompt, num_own=len(group.completions))


def build_staged(probes: Sequence[Probe], limit: int) -> list[Trial]:
    """The questions that probes bring along, at most `limit` of each; probes that ask the same thing share a trial."""
    asked: dict[tuple[str, str], list[tuple[str, Staged]]] = {}
    for probe in probes:
        for staged in islice(probe.staged, limit):
            asked.setdefault((staged.prompt, staged.before), []).append((probe.name, staged))
    return [
        Trial(
            group=Group(
                prompt=prompt,
                completions=tuple(Completion(content=text) for text in (before, *(s.after for _, s in said))),
            ),
            question=prompt,
            num_own=1,
            edits={name: k for k, (name, _) in enumerate(said, 1)},
        )
        for (prompt, before), said in asked.items()
    ]
