"""Options of `plaudit select` as settings, and what it did, as lines for people.

Part of the shell (see `plaudit.cli`). Invariant: an option that the rule does not read is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from plaudit.cli.progress import show
from plaudit.errors import ConfigError
from plaudit.select import By, Rule, Selected, SelectSettings, read_band

_READ_BY = {
    "share": ("top",),
    "overall": ("top",),
    "num": ("best", "pairs"),
    "margin": ("pairs",),
    "template": ("conditional",),
}
_FLAGS = {"num": "per-prompt"}


def build_settings(rule: Rule, *, length_corrected: bool, per_token: bool, **given: Any) -> SelectSettings:
    """Settings of what was given on the command line; ConfigError for an option of another rule."""
    for name, rules in _READ_BY.items():
        if given[name] not in (None, False) and rule not in rules:
            raise ConfigError(
                f"--{_FLAGS.get(name, name)} came with {rule}; it is read by {' and '.join(rules)}: leave it out"
            )
    by = choose_column(length_corrected, per_token)
    margin = given.pop("margin")
    kept = {name: value for name, value in given.items() if value is not None}
    return SelectSettings(rule=rule, by=by, band=read_band(margin) if margin is not None else None, **kept)


def choose_column(length_corrected: bool, per_token: bool) -> By:
    """The column that choosing goes by."""
    if length_corrected and per_token:
        raise ConfigError("--length-corrected and --per-token came; choosing goes by one of them: leave one out")
    return "length_corrected_scores" if length_corrected else "per_token_scores" if per_token else "scores"


def summarise(found: Selected, settings: SelectSettings, out: str) -> Iterator[str]:
    """What was written, what was not, and how scores and lengths moved."""
    kind = "pairs" if settings.rule == "pairs" else "completions"
    yield (
        f"{out}: {found.written:,} {kind} of {found.groups:,} prompts, chosen from {found.completions:,} completions "
        f"by {settings.by}"
    )
    if found.threshold is not None:
        yield f"the best {settings.share:.0%} of all begin at {found.threshold:.4g}"
    left = [
        f"{count:,} {what}"
        for count, what in (
            (found.unscored, "without a score"),
            (found.below, f"below {settings.min_score}"),
            (found.doubles, "said what a better one says"),
            (found.bad_rows, "bad rows"),
        )
        if count
    ]
    if left:
        yield "left out: " + ", ".join(left)
    if found.empty_groups:
        yield f"{found.empty_groups:,} prompts gave nothing"
    for name, side in (("all", found.all), ("chosen", found.chosen), ("rejected", found.rejected)):
        if side.score.value is not None and side.length.value is not None:
            gold = f"   gold {side.gold.value:+8.3f}" if side.gold.value is not None else ""
            yield f"{name:<9} score {side.score.value:+8.3f}{gold}   length {side.length.value:7,.0f} characters"
    if warning := found.warning():
        yield warning


SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def show_curve(report: Mapping[str, Any]) -> None:
    """The curve as a table, and what follows from it."""
    gold = report["gold"] is not None
    table = Table(box=None, pad_edge=False)
    for name in ("n", "score", *(("gold",) if gold else ()), "wins", "KL ≤", "KL", "length"):
        table.add_column(name, justify="right")
    for point in report["curve"]:
        if point["n"] in SHOWN or point["n"] in (report["n_max"], report["recommended_n"]):
            cells = [str(point["n"]), say_mean(point["score"], point["score_ci"])]
            cells += [say_mean(point["gold"], point["gold_ci"])] if gold else []
            wins = "" if point["win_rate"] is None else f"{point['win_rate']:.1%}"
            table.add_row(*cells, wins, f"{point['kl_bound']:.2f}", f"{point['kl']:.2f}", f"{point['length']:,.0f}")
    show(table)
    left = f"; {report['left_out']:,} have fewer" if report["left_out"] else ""
    show(f"{report['rows']:,} rows of {report['prompts']:,} prompts with at least {report['n_max']} candidates{left}")
    for line in conclude(report):
        show(line)


def say_mean(value: float, interval: Sequence[float] | None) -> str:
    """A mean, give or take half of its interval."""
    return f"{value:.3f}" + (f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else "")


def conclude(report: Mapping[str, Any]) -> Iterator[str]:
    """What follows from a curve, in sentences."""
    if report["gold"] is None:
        yield "no gold scores: a score that rises with n says nothing of quality; name their column with --gold"
        return
    last, gain = report["curve"][-1], report["curve"][-1]["gain_ci"]
    sure = gain is not None and (gain[0] > 0 or gain[1] < 0)
    yield (
        f"gold ({report['gold']}) at n = {last['n']}: {last['gain']:+.3f} over n = 1"
        + (f" [{gain[0]:+.3f}, {gain[1]:+.3f}]" if gain else "")
        + ("" if sure else ", which could be chance")
        + f"; the best that any choice could reach is {report['oracle']:.3f}"
    )
    yield f"recommended n: {report['recommended_n']}, the smallest whose gold is not told apart from the best one's"
    law = report["law"]
    if law is not None:
        top = "does not turn down" if law["peak_n"] is None else f"turns down at n = {law['peak_n']:,.0f}"
        if law["peak_n"] is not None and not (law["b_ci"] and law["b_ci"][0] > 0):
            top += ", which could be chance"
        yield f"law: gold gain = d ({law['a']:.3f} - {law['b']:.3f} d), d = sqrt(KL): {top}"
