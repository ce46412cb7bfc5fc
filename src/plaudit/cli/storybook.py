"""What `plaudit demo` did, as people read it, chapter by chapter, and as one object for machines.

Part of the shell (see `plaudit.cli`). Invariant: every number shown was measured in this run.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.cli.evalsheet import Follow, list_accuracies, list_probes, list_qualities
from plaudit.cli.progress import Progress, format_seconds, say, show
from plaudit.cli.selection import conclude, say_mean
from plaudit.cli.sheet import Row, show_section

if TYPE_CHECKING:
    from plaudit.demo import Look, Pick, Told

SHOWN = (1, 2, 4, 8, 16)
PICKED = 3
"""Prompts whose picks are shown."""


class Following(Follow):
    """A line of progress for whatever goes on; `told` is what the story tells."""

    def told(self) -> Told:
        """Who hears of training, scoring and probing."""
        from plaudit.cli.runsheet import follow
        from plaudit.demo import Told

        return Told(say=say, show=follow(Progress("training")), watch=self.watch, stage=self.stage)

    def begin(self, chapter: str) -> None:
        """The next chapter: the line of the one before has ended."""
        self.close()
        say(f"demo: {chapter}")


def show_data(look: Look) -> None:
    """Chapter one: what is trained on."""
    kinds = ", ".join(f"{name} {count}" for name, count in look.kinds.items())
    rows = [
        ("pairs", f"{look.pairs:,} on {look.prompts:,} prompts, written for this project; {look.held_out:,} held out"),
        ("kinds", kinds),
        ("length", f"the better answer {look.words_chosen:.1f} words, the worse one {look.words_rejected:.1f}"),
    ]
    if look.surface is not None:
        surface = look.surface
        rows.append(
            ("looks alone", f"tell the better one in {surface.accuracy:.0%} ± {100 * surface.half_width:.0f} of pairs")
        )
    show_section("1. The data", rows)


def show_training(report: Mapping[str, Any], warning: str, *, full: bool) -> None:
    """Chapter two: what was trained, how fast, and whether a stranger gets the same scores."""
    what = (
        "every weight of smollm2, 135M parameters"
        if full
        else "a head, on what smollm2 (135M parameters, left alone) makes of each answer"
    )
    rows = [("trained", f"{what}; {format_seconds(float(report['seconds']))}")]
    rate, unique, sharing = (report.get(k) for k in ("pairs_per_second", "unique_tokens_per_second", "sharing"))
    if rate and unique and sharing:
        rows.append(("speed", f"{rate:.1f} pairs/s, {unique:,.0f} tokens/s computed, {sharing:.2f}x shared"))
    proof = report.get("proof")
    if isinstance(proof, Mapping) and proof.get("sentence"):
        rows.append(("proof", str(proof["sentence"])))
    rows += [("saved", str(report["model"])), ("it is", warning)]
    rows += [("- alarm", alarm) for alarm in report["alarms"]]
    show_section("2. A reward model", rows)


def show_measured(report: Mapping[str, Any]) -> None:
    """Chapter three: accuracy beside what guessing gets, calibration, length, probes."""
    note = f"{report['n']:,} pairs of {report['prompts']:,} prompts that it has not seen"
    rows = [*list_accuracies(report), *list_qualities(report)]
    if report["probes"]:
        rows += [(f"probes {name}" if name == "passed" else name, text) for name, text in list_probes(report)]
    show_section("3. Measured", rows, note=note)


def show_choice(report: Mapping[str, Any], picks: Sequence[Pick]) -> None:
    """Chapter four: what the best of n is worth by the author's ratings, and some picks."""
    rows: list[Row] = []
    for point in report["curve"]:
        if point["n"] in SHOWN or point["n"] == report["n_max"]:
            rows.append((f"best of {point['n']}", f"gold rating {say_mean(point['gold'], point['gold_ci'])}"))
    rows += [("", line) for line in conclude(report)][:2]
    note = f"{report['prompts']:,} prompts, gold by their author from 0 to 10"
    show_section("4. The best of several answers", rows, note=note)
    for pick in picks[:PICKED]:
        shown = [("highest", pick.best), ("lowest", pick.worst)]
        said = [(f"{name} {score:+.2f}", f"{text} [{gold:g}]") for name, (text, score, gold) in shown]
        show_section(f"  {pick.prompt}", said)


def show_next(run: Path, commands: Sequence[str]) -> None:
    """Chapter five: pages to read, and commands to paste, each on a line of its own however narrow the screen."""
    pages = [("measured", str(run / "measured" / "report.html")), ("best of n", str(run / "best-of-n" / "report.html"))]
    show_section("5. Go on", pages, note="two pages to read, and three commands that work as they stand here")
    for command in commands:
        show(f"{command}\n")


def name_programs() -> tuple[str, str]:
    """How plaudit and its Python are called from here, as short as it works."""
    called = os.path.abspath(sys.argv[0])
    python = "python" if shutil.which("python") == sys.executable else _near(sys.executable)
    if Path(called).stem != "plaudit":
        return f"{python} -m plaudit", python
    return "plaudit" if shutil.which("plaudit") == called else _near(called), python


def _near(path: str) -> str:
    """A path from here if it is below this folder, else as it is."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


MEASURES = ("accuracy", "accuracy_ci", "n", "prompts", "baselines", "ece", "temperature", "length_correlation")
CHOICES = ("curve", "recommended_n", "law", "oracle", "n_max", "prompts")


Report = Mapping[str, Any]


def tell(look: Look, trained: Report, measured: Report, chosen: Report) -> dict[str, Any]:
    """The numbers for machines."""
    probes = {probe["name"]: probe["verdict"] for probe in measured["probes"] or ()}
    return {
        "data": asdict(look),
        "training": dict(trained),
        "measured": {name: measured[name] for name in MEASURES} | {"probes": probes},
        "best_of_n": {name: chosen[name] for name in CHOICES},
    }
