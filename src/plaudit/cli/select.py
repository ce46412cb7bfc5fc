"""`plaudit select`: scored rows in; the best of them out, as rows to learn from."""

from __future__ import annotations

from typing import Any, Literal

from plaudit.cli import options as take
from plaudit.cli.progress import Progress, report_beside, say_notes


def select(
    rule: Literal["best", "top", "pairs", "conditional"],
    scored: take.Scored,
    /,
    *,
    out: take.Out,
    shape: take.Shape = None,
    share: float | None = None,
    overall: bool = False,
    per_prompt: int | None = None,
    margin: take.Margin = None,
    min_score: float | None = None,
    length_corrected: take.LengthCorrected = False,
    per_token: take.PerToken = False,
    near: float | None = None,
    template: str | None = None,
    seed: int = 0,
    format: take.Format = None,
    bad_rows: take.BadRows = "error",
) -> dict[str, Any]:
    """Choose completions of SCORED, which plaudit score wrote, by their scores.

    best: the highest of each prompt. top: the best share, to fine-tune on.
    pairs: the best against the worst, for DPO. conditional: all of them, with
    the score told in the prompt. Says how scores and lengths moved.

    For example:

        plaudit select best scored.jsonl -o best.jsonl
        plaudit select pairs scored.jsonl --margin 0.5:3 -o dpo.jsonl

    Parameters
    ----------
    share
        top: the share of each prompt's candidates that is kept; a quarter.
    overall
        top: the share of all completions together, not of each prompt's.
    per_prompt
        best, pairs: at most so many of one prompt; 1.
    min_score
        Nothing that scores lower is chosen.
    near
        Also drop answers whose three-word sequences overlap this much with a better one, such as 0.8.
    template
        conditional: how the score is told, with {prompt} and {score}.
    seed
        Draws the lots between equal scores.
    """
    from plaudit.cli.selection import build_settings, summarise
    from plaudit.intake import ReadSettings
    from plaudit.select import select_rows

    report = report_beside(out)
    settings = build_settings(
        rule, shape=shape, share=share, overall=overall, num=per_prompt, margin=margin, min_score=min_score,
        length_corrected=length_corrected, per_token=per_token, near=near, template=template, seed=seed,
    )  # fmt: skip
    with Progress("selecting") as progress:
        reading = ReadSettings(format=format, bad_rows=bad_rows)
        found = select_rows(scored, out, settings, reading=reading, watch=lambda done: progress.update(done))
    say_notes(found.notes)
    for line in summarise(found, settings, out):
        report(line)
    return found.as_json() | {"out": out, "rule": rule}
