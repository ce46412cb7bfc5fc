"""`plaudit demo`: the story on the embedded model, from preference data to chosen answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli.options import Device, Dtype
from plaudit.cli.progress import say

Folder = Annotated[Path | None, Parameter(alias="-o", metavar="DIR")]


def demo(*, out: Folder = None, full: bool = False, dtype: Dtype = "auto", device: Device = None) -> dict[str, Any]:
    """The whole story on the embedded model; no network.

    Looks at preference pairs, trains a reward model on them, measures it on
    pairs that were held out, and picks the best of several answers with it. What
    it leaves behind is yours to go on with. Cut off, it goes on where it was.

    For example:

        plaudit demo
        plaudit demo --out my-first-run

    Parameters
    ----------
    out
        The folder for the model and its files; in plaudit's cache if not given.
    full
        Train every weight, not the head alone; a quarter of an hour on two cores.
    """
    say("demo: looking at the data")
    from plaudit import demo as story
    from plaudit.cli import storybook as book

    folder = story.open_run(out, full=full)
    look = story.look_at_data(folder)
    book.show_data(look)
    with book.Following() as following:
        told = following.told()
        following.begin("training")
        settled = story.settle_training(folder, full=full, dtype=dtype, device=device)
        trained = story.train_model(folder, settled, told)
        book.show_training(trained, story.WARNING, full=full)
        following.begin("measuring")
        measured = story.measure_model(folder, told, dtype=dtype, device=device)
        following.close()
        book.show_measured(measured)
        following.begin("choosing")
        chosen, picks = story.choose_answers(folder, told, dtype=dtype, device=device)
        book.show_choice(chosen, picks)
    plaudit, python = book.name_programs()
    commands = story.suggest_commands(folder, plaudit=plaudit, python=python)
    book.show_next(folder, commands)
    results = book.tell(look, trained, measured, chosen) | {"full": full, "run": str(folder.absolute())}
    results |= {"next": list(commands)}
    story.note_results(folder, results)
    return results
