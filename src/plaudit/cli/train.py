"""`plaudit train`: a model and preference data in, a run with a proven reward model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from plaudit.cli.progress import ELSEWHERE, Progress, say

Eval = Annotated[list[str] | None, Parameter(name="--eval", metavar="DATA", help="Evaluation data; may come again.")]
Config = Annotated[Path | None, Parameter(name="--config", alias="-c", metavar="PATH", help="A file of settings.")]


def train(
    model: str | None = None,
    /,
    *data: str,
    out: Annotated[str | None, Parameter(alias="-o", metavar="RUN", help="The folder of the run.")] = None,
    eval: Eval = None,
    config: Config = None,
    resume: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train a reward model: MODEL and DATA..., then any settings as section.key=value.

    Without evaluation data a part is set aside by prompt. What is saved in RUN/model is loaded by plain transformers in
    a fresh process and has to give the same scores. Killed at any moment, the same command with --resume goes on.

    For example:

        plaudit train smollm2 pairs.jsonl --out run train.epochs=2 lora.enabled=true

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2; a reward model goes on with its head.
    data
        Files, folders, globs, any URL, or hub:owner/name; and settings, such as train.learning_rate=1e-5.
    config
        A YAML or TOML file of settings; the command line comes after it.
    resume
        Go on with the run that stands in RUN.
    dry_run
        Print every setting with where it came from, and what the run would take; train nothing.
    """
    from plaudit.config import is_override, read_config
    from plaudit.runs import read_saved

    words = [word for word in (model, *data) if word is not None]
    overrides, places = [w for w in words if is_override(w)], [w for w in words if not is_override(w)]
    base = {"model": places[0] if places else None, "data": places[1:], "eval": eval or [], "out": out}
    where = _find_run(out, overrides, config) if resume else None
    settled = read_config(config, overrides, base, under=read_saved(where) if where else None)
    from plaudit.cli.runsheet import follow, show_plan, show_report

    if dry_run:
        from plaudit.preparation import describe_plan, prepare

        session = prepare(settled, say=say)
        plan = describe_plan(session)
        show_plan(session.settled, plan)
        return {"plan": plan, "settings": {s.key: s.value for s in session.settled.explain()}}
    from plaudit.parts import Ranks
    from plaudit.train import train as fit

    if Ranks.from_environment().rank > 0:
        fit(settled, resume=resume, say=say)
        return ELSEWHERE  # the first rank shows progress, and has the report
    with Progress("training") as progress:
        report = fit(settled, resume=resume, say=say, show=follow(progress))
    show_report(report)
    return report


def _find_run(out: str | None, overrides: list[str], config: Path | None) -> str | None:
    """The folder of the run to go on with, wherever it was said: its settings are read before the others."""
    from plaudit.config.reading import read_override, read_said

    said = [value for key, value in map(read_override, overrides) if key == "out"]
    said += [read_said(config)["out"].value] if config is not None and "out" in read_said(config) else []
    return next((str(place) for place in (out, *said) if place), None)
