"""`plaudit score`: rows in, the same rows with scores out."""

from __future__ import annotations

from typing import Any

from plaudit.cli import options as take
from plaudit.cli.progress import Progress, report_beside, say, say_notes


def score(
    model: str,
    data: list[str],
    /,
    *,
    out: take.Out,
    dtype: take.Dtype = "auto",
    device: take.Device = None,
    invariant: bool = False,
    plain: take.Plain = False,
    max_length: take.MaxLength = None,
    overlength: take.Overlengths = "error",
    keep_system: take.KeepSystem = False,
    budget: take.Budget = None,
    window: int | None = None,
    length_corrected: bool = False,
    per_token: bool = False,
    score_position: take.ScoreAt = None,
    rows: take.Rows = take.ROWS,
) -> dict[str, Any]:
    """Score every completion of DATA with MODEL; rows keep their order.

    Each row gains `scores`, pair rows also `chosen_score` and `rejected_score`;
    a completion that cannot be scored gets null, and a reason in `unscored`.
    Ratings that came in `scores` are kept in `gold_scores`.

    Killed at any moment, the same command goes on where it was. Under torchrun
    each process takes its share.

    For example:

        plaudit score smollm2-rm answers.jsonl -o scored.jsonl

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2.
    data
        Files, folders, globs, `-` for stdin, any URL, or hub:owner/name.
    invariant
        The same completion gets bit-identical scores whatever is scored beside it; slower.
    length_corrected
        Add `length_corrected_scores`, by what `plaudit eval --fit-length` stored in the model's folder.
    per_token
        Add `per_token_scores`: each score by the tokens of its answer.
    window
        Rows read ahead and committed together; 128 on a CPU, 2048 on a GPU.
    """
    from plaudit.render import Overlength, RenderSettings
    from plaudit.scorefile import ScoreJob

    report = report_beside(out)
    with ScoreJob(data, out, reading=rows.settings(), say=say) as job:
        from plaudit.score import RewardModel, Scorer, ScoreSettings  # torch, once the data is known to be there

        render = RenderSettings(
            max_length=max_length, overlength=Overlength(overlength), plain=plain, keep_system=keep_system
        )
        settings = ScoreSettings(budget=budget, window=window, invariant=invariant, render=render)
        net = RewardModel.load(model, dtype=dtype, device=device, invariant=invariant, score_position=score_position)
        readings = {"length_corrected_scores": net.reader("length_corrected")} if length_corrected else {}
        readings |= {"per_token_scores": net.reader("per_token")} if per_token else {}
        job.open(net, settings)
        done = job.count_done()
        if done:
            total = job.count_mine()
            say(f"{done:,}{f' of {total:,}' if total else ''} rows were done already: going on from there")
        with Progress("scoring", total=job.count_mine()) as progress:
            progress.start_at(done)

            def watch(scorer: Scorer, done: int) -> None:
                tally = scorer.tally
                progress.update(done, unique_tokens_per_s=tally.unique_per_second, sharing=f"{tally.sharing:.2f}x")

            job.score(watch)
        if job.ranks.rank != 0:
            return {"rank": job.ranks.rank, "world": job.ranks.world}
        summary = job.merge(readings=readings)
    say_notes(job.notes)
    precision = str(net.dtype).removeprefix("torch.")
    report(f"{out}: {summary.headline()}\n{model}: {precision}, attention back end {net.backend}")
    return summary.as_json() | {"out": out, "model": model, "backend": net.backend, "dtype": precision}
