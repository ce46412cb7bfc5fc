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

from plaudit.cli.progress import show
from plaudit.cli.sheet import Row, show_section

if TYPE_CHECKING:
    from plaudit.demo import Fit, Ranking, Round
    from plaudit.model import RewardNet


def show_model(about: Mapping[str, Any]) -> None:
    """Chapter one: what was loaded."""
    rows = [
        ("model", f"{about['name']}, {about['parameters']:,} parameters"),
        ("computes in", f"{about['dtype']} on {about['device']}"),
        ("attention", f"{about['backend']}: {about['reason']}"),
    ]
    show_section("1. A language model", rows)


def describe_model(net: RewardNet) -> dict[str, Any]:
    """The model in a few words."""
    return {
        "name": "smollm2",
        "folder": str(net.checkpoint.folder),
        "parameters": sum(p.numel() for p in net.backbone.parameters()),
        "dtype": str(net.dtype).removeprefix("torch."),
        "device": str(net.device),
        "backend": net.backend,
        "reason": net.reason,
    }


def show_fit(fit: Fit, folder: Path, warning: str) -> None:
    """Chapter two: the head, how it did held out, and what to think of it."""
    rows = [("fitted", f"logistic regression on hidden states, L2-regularised; {fit.seconds:.1f} s with its checks")]
    for part in fit.held_out:
        low, high = part.interval
        rows += [
            ("held out", f"{part.right} of {part.total} right against {part.against}"),
            ("", f"{part.accuracy:.0%}, 95% interval {low:.0%} to {high:.0%}; chance is {part.chance:.0%}"),
            ("", f"(choosing the longer one: {part.longer:g} of {part.total})"),
        ]
    rows += [("saved", str(folder)), ("it is", warning)]
    show_section(f"2. A reward head, from {fit.comparisons} comparisons", rows, note=f"on {fit.prompts} prompts")


def show_round(found: Round) -> None:
    """Chapter three: a table for each prompt, and what the scoring cost."""
    show_section("3. Answers, ranked", [], note="best, middle, worst; in brackets the author's rating, 0 to 3")
    for ranking in found.rankings:
        show_section(f"  {ranking.prompt}", rows_of(ranking))
    shared = found.total_tokens / found.unique_tokens
    rows = [
        ("answers", f"{found.completions} in {found.seconds:.2f} s, {found.completions / found.seconds:.0f} a second"),
        ("tokens", f"{found.unique_tokens:,} computed for {found.total_tokens:,}: {shared:.2f}x shared"),
        ("exact", f"within {found.difference:.1g} of each answer alone through transformers (first prompt)"),
        ("ratings", f"{found.agreeing} of {found.compared} comparisons as the answers' author rated them"),
    ]
    show_section("  All together", rows)


def rows_of(ranking: Ranking) -> list[Row]:
    """Best, middle and worst."""
    answers = ranking.answers
    places = (("best", answers[0]), ("middle", answers[len(answers) // 2]), ("worst", answers[-1]))
    return [(f"{name:<6} {answer.score:+.2f}", f"{answer.text} [{answer.rating:g}]") for name, answer in places]


def show_next(commands: Sequence[str]) -> None:
    """Chapter four: commands to paste, each on a line of its own however narrow the screen."""
    show_section("4. Go on", [], note="three commands that work as they stand here")
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


def tell(about: Mapping[str, Any], fit: Fit, found: Round) -> dict[str, Any]:
    """The numbers for machines."""
    held_out = [asdict(part) | {"accuracy": part.accuracy} for part in fit.held_out]
    sharing = found.total_tokens / found.unique_tokens
    rates = {"sharing": sharing, "completions_per_second": found.completions / found.seconds}
    return {
        "model": dict(about),
        "fit": asdict(fit) | {"held_out": held_out},
        "round": asdict(found) | rates,
    }
