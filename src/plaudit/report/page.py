"""report.json -> one HTML page that needs nothing else: no network, no script, no font, no file beside it.

Last file of `report`: it knows the kinds of report and the order of their sections. The style sheet stands in the page,
and a content security policy names its hash: a browser refuses every other style and every script, so not even a
mistake of ours could make a text out of the data act. Invariant: the same report is the same bytes, and a key that is
missing costs its own section and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from plaudit.errors import InputError
from plaudit.files import write_file
from plaudit.report.accuracy import draw_baselines, draw_length_gaps, draw_ranking, draw_scores, draw_subsets
from plaudit.report.bestofn import build_curve_verdict, draw_best_of_n, draw_findings
from plaudit.report.calibration import draw_calibration
from plaudit.report.comparison import (
    build_comparison_verdict,
    draw_differences,
    draw_disagreements,
    draw_models,
    draw_moves,
)
from plaudit.report.facts import Facts
from plaudit.report.front import draw_answer, draw_heading, draw_trust, name_data
from plaudit.report.length import draw_length
from plaudit.report.markup import tag
from plaudit.report.mistakes import draw_mistakes
from plaudit.report.outside import draw_benchmarks, draw_contamination, draw_drift
from plaudit.report.pieces import Section
from plaudit.report.probing import build_probe_verdict, draw_probes
from plaudit.report.provenance import draw_provenance, draw_training
from plaudit.report.wording import say_list

Part = Callable[[Facts], Section | None]

EVAL: tuple[Part, ...] = (
    draw_baselines,
    draw_subsets,
    draw_length_gaps,
    draw_scores,
    draw_ranking,
    draw_calibration,
    draw_length,
    draw_probes,
    draw_benchmarks,
    draw_contamination,
    draw_drift,
    draw_training,
    draw_mistakes,
    draw_provenance,
)
COMPARE: tuple[Part, ...] = (draw_models, draw_differences, draw_moves, draw_disagreements, draw_provenance)
PROBE: tuple[Part, ...] = (draw_probes, draw_provenance)
BON: tuple[Part, ...] = (draw_best_of_n, draw_findings, draw_provenance)


def _front_of_eval(facts: Facts) -> tuple[str, str, Markup]:
    return "Evaluation of a reward model", _name_of(facts), draw_trust(facts)


def _front_of_compare(facts: Facts) -> tuple[str, str, Markup]:
    names = [model.text("name") or "a model" for model in facts.rows("models")]
    answer = draw_answer("Which model is better?", build_comparison_verdict(facts), (), facts)
    return "Comparison of reward models", say_list(names) or "no models", answer


def _front_of_probe(facts: Facts) -> tuple[str, str, Markup]:
    answer = draw_answer("Does it see what it should?", build_probe_verdict(facts), (), facts)
    return "Probes of a reward model", _name_of(facts), answer


def _front_of_bon(facts: Facts) -> tuple[str, str, Markup]:
    answer = draw_answer("Does best-of-n gain anything?", build_curve_verdict(facts), (), facts)
    name = facts.part("model").text("name", "folder") or name_data(facts) or "a sample"
    return "Best-of-n", name, answer


KINDS: Mapping[str, tuple[Callable[[Facts], tuple[str, str, Markup]], tuple[Part, ...]]] = MappingProxyType(
    {
        "eval": (_front_of_eval, EVAL),
        "compare": (_front_of_compare, COMPARE),
        "probe": (_front_of_probe, PROBE),
        "bon": (_front_of_bon, BON),
    }
)


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the page of a report; the file is whole or not there."""
    write_file(path, render_page(report))


def render_page(report: Mapping[str, Any]) -> str:
    """The page of a report, by its `kind`; raise InputError if there is none for it."""
    facts = Facts(report)
    kind = facts.text("kind")
    if kind not in KINDS:
        raise InputError(
            f"a report of kind {report.get('kind')!r} came, and there are pages for {say_list(list(KINDS))}; "
            "give the report.json of one of these commands"
        )
    front, parts = KINDS[kind]
    label, name, answer = front(facts)
    sections = [section for part in parts if (section := part(facts)) is not None]
    links = [tag("li", tag("a", section.title, href=f"#{section.name}")) for section in sections]
    top = tag("li", tag("a", "Summary", href="#trust"))
    body = tag(
        "body",
        tag("nav", tag("ul", top, links), aria_label="Sections"),
        tag("main", draw_heading(label, name, facts), answer, [section.render() for section in sections]),
    )
    return "<!doctype html>\n" + str(tag("html", _head(f"{name}: {label.lower()}"), body, lang="en")) + "\n"


def _head(title: str) -> Markup:
    style = files("plaudit.report").joinpath("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        # Ours, and never of the data: a style element's text is not escaped.
        tag("style", Markup(style)),
    )


def _name_of(facts: Facts) -> str:
    return facts.part("model").text("name", "folder") or "a model without a name"
