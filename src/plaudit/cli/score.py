"""`plaudit score`: rows in, the same rows with scores out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from plaudit.cli.options import BadRows, ChosenKey, Device, Dtype, Format, Out, PromptKey, RejectedKey
from plaudit.cli.progress import Progress, say, show

Overlengths = Literal["error", "drop", "left", "right", "unscored"]


def score(
    model: str,
    data: list[str],
    /,
    *,
    out: Out,
    dtype: Dtype = "auto",
    device: Device = None,
    invariant: bool = False,
    plain: bool = False,
    max_length: int | None = None,
    overlength: Overlengths = "error",
    keep_system: bool = False,
    budget: Annotated[int | None, Parameter(name=["--budget", "--tokens-per-pack"])] = None,
    window: int | None = None,
    format: Format = None,
    prompt_key: PromptKey = None,
    chosen_key: ChosenKey = None,
    rejected_key: RejectedKey = None,
    bad_rows: BadRows = "error",
) -> dict[str, Any]:
    """Score every completion of DATA with MODEL; rows keep their order and gain `scores`.

    Pair rows also gain `chosen_score` and `rejected_score`; a completion that cannot be scored gets null and a
    reason in `unscored`. Killed at any moment, the same command goes on where it was; under torchrun each process
    takes its share.

    Example:

        plaudit score smollm2-rm answers.jsonl -o scored.jsonl

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2.
    data
        Files, folders, globs, `-` for stdin, any URL, or hub:owner/name.
    invariant
        The same completion gets bit-identical scores whatever is scored beside it; slower.
    plain
        Prompt + completion as plain text, without the chat template.
    max_length
        Tokens a completion may have with its prompt; the model's context if not given.
    overlength
        What happens to longer ones.
    keep_system
        Left truncation keeps the system message.
    budget
        Tokens computed at once; found from free memory if not given.
    window
        Rows read ahead and committed together; 128 on a CPU, 2048 on a GPU.
    """
    from plaudit.formats import Columns
    from plaudit.render import Overlength, RenderSettings
    from plaudit.score import RewardModel, Scorer, ScoreSettings
    from plaudit.scorefile import ReadSettings, ScoreJob

    render = RenderSettings(
        max_length=max_length, overlength=Overlength(overlength), plain=plain, keep_system=keep_system
    )
    settings = ScoreSettings(budget=budget, window=window, invariant=invariant, render=render)
    columns = Columns(prompt=prompt_key, chosen=chosen_key, rejected=rejected_key)
    reading = ReadSettings(format=format, columns=columns, bad_rows=bad_rows)
    net = RewardModel.load(model, dtype=dtype, device=device, invariant=invariant)
    job = ScoreJob(net, data, out, settings=settings, reading=reading)
    with Progress("scoring", unit="rows", total=job.count_rows()) as progress:
        progress.start_at(job.count_done())

        def watch(scorer: Scorer, done: int) -> None:
            tally = scorer.tally
            progress.update(done, unique_tokens_per_s=tally.unique_per_second, sharing=f"{tally.sharing:.2f}x")

        job.score(watch)
    if job.ranks.rank != 0:
        return {"rank": job.ranks.rank}
    summary = job.merge()
    for note in dict.fromkeys(job.notes):
        say(note)
    result = summary.as_json() | {"out": out, "model": model, "backend": net.backend, "dtype": str(net.dtype)[6:]}
    show(
        f"{out}: {summary.rows:,} rows, {summary.scored:,} of {summary.completions:,} completions scored; "
        f"{summary.unique_tokens:,} tokens computed for {summary.total_tokens:,} ({summary.sharing:.2f}x shared)"
    )
    return result
