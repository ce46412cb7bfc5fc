"""`plaudit probe`: a model and some prompts in; what moves its scores that should not, and what should and does not."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli import options as take
from plaudit.cli.progress import Progress, say_notes, show

JOURNAL = "probes.journal"
"""What --out holds until the report is written: the scores so far."""

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
    interval and a verdict. Writes report.json and report.html in --out. Killed
    at any moment, the same command goes on where it was.

    For example:

        plaudit probe reward-model pairs.jsonl --out probed

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2.
    data
        Files, folders, globs, `-`, any URL, or hub:owner/name.
    limit
        Prompts that are probed, drawn by --seed.
    """
    from plaudit.cli.probesheet import begin_report, show_probes
    from plaudit.formats.spool import Spool
    from plaudit.keys import digest_texts
    from plaudit.probes import ProbeSettings, draw_prompts, measure_sample
    from plaudit.report import PAGE, make_folder, write_report

    names = tuple(name.strip() for name in only.split(",") if name.strip()) if only else ()
    settings = ProbeSettings(limit=limit, only=names, seed=seed)
    folder = out.expanduser()
    make_folder(folder)
    spool = Spool()
    sources = spool.resolve(data)
    reader = rows.settings().open(sources)
    sample = draw_prompts((row.group for row in reader), settings)
    from plaudit.journal import Journal
    from plaudit.render import Overlength, RenderSettings  # torch, once the data is known to be there
    from plaudit.score import RewardModel, Scorer, ScoreSettings
    from plaudit.scorefile import describe_scores

    render = RenderSettings(max_length=max_length, overlength=Overlength.UNSCORED, plain=plain)
    net = RewardModel.load(model, dtype=dtype, device=device, score_position=score_position)
    scoring = ScoreSettings(budget=budget, render=render)
    scorer = Scorer(net, scoring)
    # Groups are known there by every word of them: prompts that changed since a run was killed are scored anew.
    journal = Journal(scorer, folder / JOURNAL, digest_texts([json.dumps(describe_scores(net, scoring))]).hex())
    with Progress("probing", unit="groups") as progress:
        found = measure_sample(journal, sample, settings=settings, watch=progress.update)
    told = begin_report(model, net, sources, reader) | found.as_json()
    spool.close()
    told |= {"seed": seed, "seconds": {"score": scorer.tally.seconds}}
    resumed = [f"{journal.resumed:,} groups were scored by an earlier run of this command"] if journal.resumed else []
    say_notes([*reader.notes, *resumed, *scorer.notes, *scorer.renderer.counts.sentences(), *found.notes])
    show(show_probes(found))
    write_report(told, folder)
    journal.remove()
    show(f"{folder / PAGE}: {journal.completions:,} completions of {found.num_prompts:,} prompts")
    return told
