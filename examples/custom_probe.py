"""A probe of your own: does a disclaimer at the end of an answer move its score?

python examples/custom_probe.py MODEL DATA
"""

from __future__ import annotations

import random
import sys

import plaudit
from plaudit.probes import Case, Expects, Probe, ProbeSettings, measure_probes
from plaudit.render import Overlength, RenderSettings
from plaudit.score import Scorer, ScoreSettings


def disclaim(case: Case, rng: random.Random) -> str:
    """The answer with a disclaimer after it; an edit may also say None, where it does not apply."""
    words = rng.choice(["This is not professional advice.", "Please check this with an expert."])
    return f"{case.answer}\n\n{words}"


DISCLAIMER = Probe(
    name="disclaimer", about="a disclaimer after the answer", expects=Expects.SAME, touches=("length",), edit=disclaim
)


def main(model: str, data: str) -> None:
    """Probe with it alone; `more` beside no `only` would try it with all the others."""
    render = RenderSettings(overlength=Overlength.UNSCORED)
    scorer = Scorer(plaudit.load(model), ScoreSettings(render=render))
    settings = ProbeSettings(only=("padding",), more=(DISCLAIMER,))
    for result in measure_probes(scorer, plaudit.read(data), settings=settings):
        shift = f"{result.shift.mean:+.2f} spreads" if result.shift else "not measured"
        print(f"{result.probe.name}: {result.verdict}, shift {shift}, over {result.num_prompts} prompts")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
