"""`plaudit demo`: the story on the embedded model, from a language model to ranked answers, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli.options import Device, Dtype
from plaudit.cli.progress import say
from plaudit.cli.storybook import describe_model, name_programs, show_fit, show_model, show_next, show_round, tell

Folder = Annotated[Path | None, Parameter(alias="-o", metavar="DIR")]


def demo(*, out: Folder = None, dtype: Dtype = "float32", device: Device = None) -> dict[str, Any]:
    """The whole story on the embedded model; no network.

    A reward head is fitted to a few dozen comparisons, judged on prompts that it has not seen, saved, and used to rank
    the answers of a file, as `plaudit score` would. What it leaves behind is yours to go on with. It computes in
    float32 unless told otherwise, so that every machine tells the same story.

    For example:

        plaudit demo
        plaudit demo --out my-first-run

    Parameters
    ----------
    out
        The folder for the model and its files; in plaudit's cache if not given.
    """
    say("demo: loading the embedded language model")
    from plaudit import demo as story
    from plaudit.score import RewardModel

    run = story.open_run(out)
    net = story.load_language_model(dtype=dtype, device=device)
    about = describe_model(net)
    show_model(about)
    say("demo: fitting a reward head")
    fit = story.fit_head(net, story.read_comparisons(run))
    folder = story.save_model(net, run, fit)
    show_fit(fit, folder, story.WARNING)
    say("demo: loading what was saved, and scoring with it")
    found = story.rank_candidates(RewardModel.load(folder, dtype=dtype, device=device), run)
    show_round(found)
    plaudit, python = name_programs()
    commands = story.suggest_commands(run, plaudit=plaudit, python=python)
    show_next(commands)
    results = tell(about, fit, found) | {"run": str(run.absolute()), "next": list(commands)}
    story.note_results(run, results)
    return results
