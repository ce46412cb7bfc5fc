"""`plaudit bon`: a scored sample in; what the best of n would be worth, for every n, out."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli import options as take
from plaudit.cli.progress import Progress, say_notes, show


def bon(
    scored: take.Scored,
    /,
    *,
    out: take.Out,
    gold: Annotated[str | None, Parameter(metavar="COLUMN")] = None,
    max_n: int | None = None,
    length_corrected: take.LengthCorrected = False,
    per_token: take.PerToken = False,
    seed: int = 0,
    format: take.Format = None,
    bad_rows: take.BadRows = "error",
) -> dict[str, Any]:
    """Estimate what the best of n by score is worth, for every n at once.

    SCORED holds prompts with several completions and their `scores`. Where a
    gold score is known too, says at which n choosing stops to help. Writes
    report.json and report.html into the folder --out.

    For example:

        plaudit bon scored.jsonl --gold gold_scores --out best-of-n

    Parameters
    ----------
    gold
        The column of gold scores, a list; `gold_scores` or ratings if rows have them.
    max_n
        The largest n; what at least half of the prompts have completions for.
    seed
        Draws prompts anew for the intervals.
    """
    from plaudit.cli.selection import choose_column, show_curve
    from plaudit.intake import ReadSettings
    from plaudit.select import BonSettings, study_best_of_n

    settings = BonSettings(gold=gold, num_max=max_n, by=choose_column(length_corrected, per_token), seed=seed)
    reading = ReadSettings(format=format, bad_rows=bad_rows)
    with Progress("reading") as progress:
        report = study_best_of_n(scored, out, settings, reading=reading, watch=lambda done: progress.update(done))
    say_notes(report["notes"])
    show_curve(report)
    show(f"{out}/report.html: the page with the curves; {out}/report.json: its numbers")
    return report | {"out": out}
