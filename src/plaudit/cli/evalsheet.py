"""What an evaluation or a comparison says on a terminal, and how far it is; what is printed can go into a report.

Part of the shell (see `plaudit.cli`); the answer on top is the one of the page. Invariant: an accuracy is never shown
without its interval and without what the null baselines get.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from plaudit.cli.progress import Progress
from plaudit.cli.sheet import Row, show_section

if TYPE_CHECKING:
    from plaudit.score import Scorer
    from plaudit.sets import Pace, Watch

BASELINES = {
    "longest": "longer answer",
    "shortest": "shorter one",
    "most_lists": "more lists",
    "random": "a coin",
    "bag_of_words": "bag of words",
}
MOST_SUBSETS = 12
LEAD = ": its lead is "


class Follow:
    """One line of progress after the other: rows that are scored, then whatever else takes time."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._title = ""

    def _show(self, title: str, unit: str) -> Progress:
        if self._progress is None or self._title != title:
            self.close()
            self._title, self._progress = title, Progress(title, unit=unit).__enter__()
        return self._progress

    def watch_model(self, name: str) -> Watch:
        """Rows that are scored by one of several models."""
        return partial(self.watch, title=f"scoring with {name}")

    def watch(self, scorer: Scorer, pace: Pace, title: str = "scoring") -> None:
        """Rows that are scored."""
        progress, tally = self._show(title, "rows"), scorer.tally
        progress.first_done = pace.resumed
        progress.update(
            pace.done, pace.total, unique_tokens_per_s=tally.unique_per_second, sharing=f"{tally.sharing:.2f}x"
        )

    def stage(self, what: str, done: int, total: int | None) -> None:
        """Prompts that are probed, answers that are read."""
        self._show(what, "prompts").update(done, total)

    def close(self, error: BaseException | None = None) -> None:
        """End the line that is shown."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.__exit__(type(error) if error is not None else None, error, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close(error)


def show_evaluation(report: Mapping[str, Any], out: Path) -> None:
    """What came out, a screen of it."""
    from plaudit.report import build_verdict

    verdict = build_verdict(report)
    show_section(
        "Can it be trusted?", [("answer", verdict.answer), ("", verdict.sentence)], note=report["model"]["name"]
    )
    rows = list_accuracies(report)
    if rows:
        show_section("Accuracy, and what guessing gets", rows, note=_count(report))
    show_section("Subsets", _list_subsets(report)) if len(report["subsets"]) > 1 else None
    show_section("Beyond accuracy", list_qualities(report))
    if report["benchmarks"]:
        show_section("Benchmarks", [_say_benchmark(name, found) for name, found in report["benchmarks"].items()])
    if report["probes"]:
        show_section("Probes", list_probes(report), note=f"{report['probe_prompts']:,} prompts")
    if report["drift"]:
        show_section(
            "Drift", [("verdict", report["drift"]["verdict"]), *(("", one) for one in report["drift"]["notes"])]
        )
    # That it leads nobody is the answer already, and stands in the list of accuracies.
    alarms = [one for one in verdict.reasons if verdict.level != "bad" or LEAD not in one]
    show_section("Alarms", [("- alarm", alarm) for alarm in alarms]) if alarms else None
    stored = [("stored", " and ".join(report["stored"]))] if report["stored"] else []
    show_section("Written", [*stored, ("page", str(out / "report.html")), ("figures", str(out / "report.json"))])


def say_share(value: float | None, interval: list[float] | None) -> str:
    """71.3% [68.9, 73.6]."""
    if value is None:
        return "not measured"
    return f"{value:6.1%}" + (f"  [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def say_points(value: float, interval: list[float] | None) -> str:
    """+11.2 points [8.1, 14.2]."""
    ends = f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]" if interval else ""
    return f"{100 * value:+.1f} points{ends}"


def say_number(value: float | None, interval: list[float] | None) -> str:
    """0.043 [0.031, 0.058]."""
    if value is None:
        return "not measured"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _count(report: Mapping[str, Any]) -> str:
    said = f"{report['n']:,} comparisons of {report['prompts']:,} prompts"
    apart = [
        f"{report[name]:,} {words}" for name, words in (("ties", "ties"), ("unscored", "unscored")) if report[name]
    ]
    return said + (f"; apart: {', '.join(apart)}" if apart else "")


def list_accuracies(report: Mapping[str, Any]) -> list[Row]:
    """The model and the null baselines, best first, in one column."""
    if report["accuracy"] is None:
        return []
    rivals = sorted(report["baselines"].items(), key=lambda one: -(one[1]["accuracy"] or 0))
    rows: list[Row] = [("the model", say_share(report["accuracy"], report["accuracy_ci"]))]
    for name, found in rivals:
        if found["accuracy"] is not None:
            lead = f"; model {say_points(found['lead'], found['lead_ci'])}" if found.get("lead") is not None else ""
            rows.append((BASELINES.get(name, name), say_share(found["accuracy"], found["accuracy_ci"]) + lead))
    return rows


def _list_subsets(report: Mapping[str, Any]) -> list[Row]:
    """The worst ones, the worst first."""
    measured = [(name, one) for name, one in report["subsets"].items() if one["accuracy"] is not None]
    measured.sort(key=lambda one: one[1]["accuracy"])
    rows = [
        (name, f"{say_share(one['accuracy'], one['accuracy_ci'])} on {one['n']:,}")
        for name, one in measured[:MOST_SUBSETS]
    ]
    more = len(report["subsets"]) - len(rows)
    return [*rows, *([("", f"and {more:,} more, in the report")] if more else [])]


def list_qualities(report: Mapping[str, Any]) -> list[Row]:
    """Calibration, length, style, ranking."""
    rows: list[Row] = []
    if report["ece"] is not None:
        rows.append(("calibration", f"ECE {say_number(report['ece'], report['ece_ci'])} as it is"))
        if report["temperature"] is not None and report["ece_calibrated"] is not None:
            rows.append(("", f"ECE {report['ece_calibrated']:.3f} with temperature {report['temperature']:.3g}"))
    said = say_number(report["length_correlation"], report["length_correlation_ci"])
    rows.append(("length", f"correlation with score within prompts {said}"))
    corrected = report["length_corrected"]
    if corrected and corrected["accuracy"] is not None:
        rows.append(("", f"accuracy without what length is worth {say_share(**_pair(corrected)).strip()}"))
    if report["ranking"]:
        found = report["ranking"]
        rows.append(("ranking", f"best answer first in {say_share(found['top1'], found['top1_ci']).strip()}"))
    return rows


def _pair(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": found["accuracy"], "interval": found["accuracy_ci"]}


def _say_benchmark(name: str, found: Mapping[str, Any]) -> Row:
    partly = "" if found["complete"] else ", not all of its rows"
    return name, f"{say_share(found['score'], found['score_ci'])} on {found['n']:,}{partly}"


def list_probes(report: Mapping[str, Any]) -> list[Row]:
    """Those that speak against the model; the others as a count."""
    from plaudit.report.facts import Facts
    from plaudit.report.verdict import is_failed

    bad = [probe for probe in report["probes"] if is_failed(Facts(probe))]
    rows: list[Row] = [("passed", f"{len(report['probes']) - len(bad)} of {len(report['probes'])}")]
    for probe in bad:
        shift = probe["shift"]
        flips = f", turns {probe['flip_rate']:.0%} of orders" if probe["flip_rate"] is not None else ""
        moved = f"moves the score by {shift:+.2f} spreads" if shift is not None else "no shift"
        rows.append((f"- {probe['name']}".replace("_", " "), f"{moved}{flips}"))
    return rows


def show_comparison(report: Mapping[str, Any], out: Path) -> None:
    """Who is better, if that can be said; each model, each pair, and the subsets that surely moved."""
    from plaudit.report.comparison import build_comparison_verdict
    from plaudit.report.facts import Facts

    verdict = build_comparison_verdict(Facts(report))
    show_section("Which one is better?", [("answer", verdict.answer), ("", verdict.sentence)])
    show_section("Accuracy", [(one["name"], say_share(**_pair(one))) for one in report["models"]])
    for pair in report["pairs"]:
        if pair["difference"] is None:
            continue
        subsets = pair["subsets"]
        alone = f"{pair['only_a_right']:,} only {pair['a']} has right, {pair['only_b_right']:,} only {pair['b']}"
        rows = [
            ("difference", say_points(pair["difference"], pair["difference_ci"])),
            ("McNemar", f"p = {pair['p']:.3g} by prompt; {alone}"),
            *(
                (f"{sign} {name}", _say_move(one))
                for name, one in subsets.items()
                if (sign := _sign(one, len(subsets)))
            ),
        ]
        show_section(f"{pair['b']} against {pair['a']}", rows, note=f"{pair['n']:,} comparisons that both scored")
    show_section("Written", [("page", str(out / "report.html")), ("figures", str(out / "report.json"))])


def _sign(moved: Mapping[str, Any], num_subsets: int) -> str:
    """+ or - of a subset that surely moved, as one of so many."""
    from plaudit.report.comparison import is_sure
    from plaudit.report.facts import Facts

    if not is_sure(Facts(moved), num_subsets):
        return ""
    return "+" if moved["difference"] > 0 else "-"


def _say_move(moved: Mapping[str, Any]) -> str:
    return f"{say_points(moved['difference'], moved['difference_ci'])} on {moved['n']:,}"
