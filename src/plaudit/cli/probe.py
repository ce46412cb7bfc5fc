"""`plaudit probe`: a model and some prompts in; what moves its scores that should not, and what should and does not."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli import options as take
from plaudit.cli.progress import Progress, say_notes, show

WINDOW = 8
Only = Annotated[str | None, Parameter(metavar="NAMES", help="These probes alone, such as padding,bullets.")]


def probe(
    model: str,
    data: list[str],
    /,
    *,
    out: take.ReportFolder,
    only: Only = None,
    limit: int = 200,
    seed: int = 0,
    dtype: take.Dtype = "auto",
    device: take.Device = None,
    plain: take.Plain = False,
    max_length: take.MaxLength = None,
    budget: take.Budget = None,
    score_position: take.ScoreAt = None,
    rows: take.Rows = take.ROWS,
) -> dict[str, Any]:
    """Edit answers in DATA, and see what MODEL makes of it; no labels are needed.

    Some edits keep the meaning (padding, lists, typos): the score should stay.
    The others make an answer worse (cut off, off topic, a wrong number): it
    should fall. Each shift comes in units of the scores' spread, with an
    interval and a verdict. Writes report.json and report.html in --out.

    For example:

        plaudit probe reward-model pairs.jsonl --out probed

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2.
    data
        Files, folders, globs, any URL, or hub:owner/name.
    limit
        Prompts that are probed, drawn by --seed.
    """
    from plaudit.cli.probesheet import begin_report, show_probes
    from plaudit.probes import ProbeSettings, draw_prompts, measure_sample
    from plaudit.report import PAGE, make_folder, write_report

    names = tuple(name.strip() for name in only.split(",") if name.strip()) if only else ()
    settings = ProbeSettings(limit=limit, only=names, seed=seed)
    folder = out.expanduser()
    make_folder(folder)
    reader = rows.settings().open(data)
    sample = draw_prompts((row.group for row in reader), settings)
    from plaudit.render import Overlength, RenderSettings  # torch, once the data is known to be there
    from plaudit.score import RewardModel, Scorer, ScoreSettings

    render = RenderSettings(max_length=max_length, overlength=Overlength.UNSCORED, plain=plain)
    net = RewardModel.load(model, dtype=dtype, device=device, score_position=score_position)
    # A prompt has some 25 completions here, so a few prompts fill packs, and progress is seen.
    scorer = Scorer(net, ScoreSettings(budget=budget, window=WINDOW, render=render))
    with Progress("probing", unit="groups") as progress:
        found = measure_sample(scorer, sample, settings=settings, watch=progress.update)
    told = begin_report(model, net, data, reader) | found.as_json()
    told |= {"seed": seed, "seconds": {"score": scorer.tally.seconds}}
    say_notes([*reader.notes, *scorer.notes, *scorer.renderer.counts.sentences(), *found.notes])
    show(show_probes(found))
    write_report(told, folder)
    show(f"{folder / PAGE}: {scorer.tally.completions:,} completions of {found.num_prompts:,} prompts")
    return told
