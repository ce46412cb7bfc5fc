"""What a training run was told, what it would take, and what came out, as people read it.

Part of the shell (see `plaudit.cli`). Invariant: every number shown was measured or is marked as an estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plaudit.cli.progress import Progress, format_number, format_seconds
from plaudit.cli.sheet import Row, format_bytes, show_section

if TYPE_CHECKING:
    from collections.abc import Callable

    from plaudit.config import Settled

WATCHED = ("loss", "accuracy", "unique_tokens_per_second", "sharing")


def follow(progress: Progress) -> Callable[[int, int, dict[str, float]], None]:
    """What a run's metrics do to a progress line."""
    progress.unit = "steps"
    is_begun = False

    def look(step: int, steps: int, values: dict[str, float]) -> None:
        nonlocal is_begun
        if not is_begun:
            # What was prepared before the first step, or done before a kill, says nothing of the rate.
            is_begun = True
            progress.start_at(step)
        seen = {name.replace("_per_second", "_per_s"): values[name] for name in WATCHED if name in values}
        seen |= {k.replace("_", " "): v for k, v in values.items() if k.startswith("eval") and k.endswith("accuracy")}
        progress.update(step, steps, **seen)

    return look


def show_settings(settled: Settled) -> None:
    """Every value with where it came from; a section for those that are not defaults, one for those that are."""
    rows = settled.explain()
    told = [(s.key, f"{s.value}  ({s.origin})") for s in rows if s.origin != "default"]
    plain = [(s.key, str(s.value)) for s in rows if s.origin == "default"]
    show_section("Settings", told)
    show_section("Defaults", plain)


def show_plan(settled: Settled, plan: dict[str, Any]) -> None:
    """`--dry-run`: settings, then an estimate."""
    show_settings(settled)
    rows: list[Row] = [
        ("groups", f"{plan['groups']:,}, with {plan['comparisons']:,} comparisons"),
        *((f"eval {name}", f"{count:,} groups") for name, count in plan["eval_groups"].items()),
        ("steps", f"{plan['steps']:,} in {plan['epochs']:.3g} epochs"),
        ("trained", f"{plan['trained_parameters']:,} parameters, computing in {plan['precision']}"),
        (
            "tokens",
            f"{plan['unique_tokens']:,} computed for {plan['total_tokens']:,} ({plan['sharing']:.2f}x shared, or more)",
        ),
        ("memory", f"about {format_bytes(plan['memory_bytes'])} (an estimate)"),
        ("time", f"about {format_seconds(plan['seconds'])} at half of {plan['gflops']:,.0f} GFLOP/s (an estimate)"),
    ]
    show_section("What it would take", rows)


def show_report(report: dict[str, Any]) -> None:
    """What came out."""
    rows: list[Row] = [("model", report["model"])]
    rows += [
        # A report that is read again holds null where a number was not finite.
        (f"eval {name}", "not a finite number" if report["eval"][name] is None else format_number(report["eval"][name]))
        for name in report["eval"]
        if name.endswith(("accuracy", "loss", "margin"))
    ]
    rows.append(("steps", f"{report['steps']:,}, best at {report['best_step']:,}"))
    rate, unique, sharing = (report.get(k) for k in ("pairs_per_second", "unique_tokens_per_second", "sharing"))
    if rate and unique and sharing:
        rows.append(("speed", f"{rate:,.1f} pairs/s, {unique:,.0f} unique tokens/s, {sharing:.2f}x shared"))
    rows.append(("time", format_seconds(float(report["seconds"]))))
    rows += (
        [("skipped", f"{len(report['skipped_steps'])} steps that were not a number")] if report["skipped_steps"] else []
    )
    rows += [("- alarm", alarm) for alarm in report["alarms"]]
    show_section("Trained", rows, note=str(report["run"]))
