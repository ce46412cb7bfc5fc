"""The page that goes with a model: what it is, the numbers of its run, and how each consumer gets its raw score.

Stands above `export`, which writes it into the folder as README.md. Text in, text out: it opens no file and loads no
model. Invariant: every number on the page was measured and handed in, and the first example prints the score that the
page says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plaudit import __version__
from plaudit.adjust import ENDS
from plaudit.embedded import looks_like_hub_name
from plaudit.ends import describe_ends
from plaudit.group import Message
from plaudit.redaction import hide_report
from plaudit.specimen import SampleRow


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a model's page is made of; `card` is plaudit.json, `report` the numbers of the run, if there was one."""

    name: str
    architecture: str
    num_weights: int
    dtype: str
    head: str = "score"
    base: str | None = None
    is_adapter: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    example: SampleRow | None = None
    score: float | None = None
    proof: str | None = None


def render_page(facts: ModelFacts) -> str:
    """The page, in Markdown, with the front matter that the hub reads."""
    facts = replace(facts, card=hide_report(facts.card), report=hide_report(facts.report))
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        _introduce(facts),
        *_tell_numbers(facts.report),
        "## Scores\n\n" + _tell_scores(facts),
        *_tell_ends(facts),
        *_show_example(facts),
        *_show_consumers(facts),
        *([f"## Proof\n\nThis folder was {facts.proof}."] if facts.proof else []),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: ModelFacts) -> str:
    on_hub = facts.base if facts.base and looks_like_hub_name(facts.base) else None
    lines = [
        f"library_name: {'peft' if facts.is_adapter else 'transformers'}",
        "pipeline_tag: text-classification",
        *([f"base_model: {on_hub}"] if on_hub else []),
        "tags:\n- reward-model\n- plaudit",
    ]
    return "---\n" + "\n".join(lines) + "\n---"


def _introduce(facts: ModelFacts) -> str:
    what = "LoRA adapter with a reward head" if facts.is_adapter else "reward model"
    on = f" on `{facts.base}`" if facts.base and looks_like_hub_name(facts.base) else ""
    return (
        f"A {what}{on}: a prompt and an answer in, one number out; higher is better. `{facts.architecture}`, "
        f"{facts.num_weights:,} weights in {facts.dtype}, written by plaudit {facts.card.get('plaudit', __version__)}."
    )


def _tell_numbers(report: Mapping[str, Any]) -> Iterator[str]:
    """Evaluation and run as tables, whatever the report holds: what is no number is left to the report."""
    evals = report.get("eval")
    if isinstance(evals, Mapping) and evals:
        several = all(isinstance(value, Mapping) for value in evals.values())
        rows = [
            (f"{name}: {key}", value)
            for name, numbers in (evals.items() if several else [("", evals)])
            for key, value in numbers.items()
        ]
        yield from _tabulate("Evaluation", [(key.removeprefix(": "), value) for key, value in rows])
    yield from _tabulate("Run", [(key, value) for key, value in report.items() if key not in ("eval", "model", "out")])


def _tabulate(title: str, rows: Sequence[tuple[str, Any]]) -> Iterator[str]:
    shown = [(key.replace("_", " ").replace("|", "\\|"), text) for key, value in rows if (text := _show(value))]
    if shown:
        yield f"## {title}\n\n| | |\n|---|---|\n" + "\n".join(f"| {key} | {text} |" for key, text in shown)


def _show(value: Any) -> str:
    """A number, an interval or a word as people read it; empty for anything else."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, str):
        return value.replace("|", "\\|") if len(value) < 80 and "\n" not in value else ""
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(x, (int, float)) for x in value):
        return f"{value[0]:.4g} to {value[1]:.4g}"
    return ""


def _tell_scores(facts: ModelFacts) -> str:
    said = [
        "* A conversation is the tokenizer's chat template over prompt and answer, without a generation prompt, "
        "tokenized with no special tokens added.",
        "* The score is the one logit at the last token. It is raw: nothing squashes it, and only differences between "
        "answers to one prompt mean something.",
        f"* The head (`{facts.head}`) is kept in float32; the rest in {facts.dtype}.",
    ]
    if facts.example is not None and facts.example.messages is None:
        said[0] = "* A text is prompt and answer as one string, with EOS after it; there is no chat template."
    if facts.card.get("score_position", "last") != "last":
        said[1] = said[1].replace("at the last token", f"of the encoder ({facts.card['score_position']})")
    normal = facts.card.get("normalisation")
    if normal:
        said.append(
            f"* Mean {normal['mean']:.4g} and deviation {normal['std']:.4g}, measured on {normal['count']:,} answers "
            f"({normal['source']}), are stored and not applied. Leave OpenRLHF's reward.normalize_enable off: under "
            "transformers 5 its loader does not initialise them (only the arithmetic was checked here)."
        )
    return "\n".join(said)


def _tell_ends(facts: ModelFacts) -> Iterator[str]:
    """Whether trainers that read at EOS get the same judgement, where the template goes on after it."""
    if found := facts.card.get(ENDS):
        yield (
            "## Read at EOS\n\nThe chat template writes white space after the token that closes an answer. "
            "transformers, TRL and vLLM read the score at the last token; OpenRLHF and RL trainers, whose sequences "
            f"end at EOS, read it at the closing token. On the evaluation data, {describe_ends(found)}."
        )


def _show_example(facts: ModelFacts) -> Iterator[str]:
    """The quick start: what it prints is what was measured."""
    if facts.example is None or facts.score is None or facts.head != "score":
        return
    yield f"## Quick start\n\n```python\n{_code(facts)}```\n\nprints {facts.score:.4f}, or nearly."


def _code(facts: ModelFacts) -> str:
    assert facts.example is not None
    loading = "AutoModelForSequenceClassification.from_pretrained(path)"
    after = ""
    if facts.is_adapter:
        dtype = f"dtype=torch.{facts.dtype}"  # of the base that it was trained on
        loading = f"AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, {dtype})"
        after = "model.config.pad_token_id = tokenizer.pad_token_id\n"
    if facts.example.messages is not None:
        turns = "".join(f"    {_literal(turn)},\n" for turn in facts.example.messages)
        given = (
            f"messages = [\n{turns}]\n"
            'ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)\n'
        )
    else:
        given = (
            f"text = {json.dumps(facts.example.text, ensure_ascii=False)}\n"
            'ids = tokenizer(text + tokenizer.eos_token, return_tensors="pt").input_ids\n'
        )
    return (
        "import torch\nfrom transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f'path = "{facts.name}"  # this folder, or where you put it on the hub\n'
        f"tokenizer = AutoTokenizer.from_pretrained(path)\nmodel = {loading}.eval()\n{after}"
        f"{given}with torch.inference_mode():\n    print(model(input_ids=ids).logits[0, 0].item())\n"
    )


def _literal(turn: Message) -> str:
    return json.dumps(dict(turn), ensure_ascii=False)


def _show_consumers(facts: ModelFacts) -> Iterator[str]:
    name, dtype = facts.name, " --dtype float32" if facts.dtype == "float32" else ""
    rows = [("plaudit", f'`plaudit.load("{name}").score(prompt, answers)`')]
    if facts.is_adapter:
        rows.append(("servers and trainers", f"`plaudit export {name} --out merged --merge` gives a folder for them"))
    elif facts.head != "score":
        rows.append(("OpenRLHF", f"`--reward.model_name_or_path {name}` (it reads `value_head_prefix`)"))
    else:
        rows += [
            ("pipeline", f'`pipeline("text-classification", "{name}")(rendered, add_special_tokens=False)`'),
            ("TRL", f'`GRPOTrainer(reward_funcs="{name}", ...)`'),
            ("vLLM", f"`vllm serve {name} --runner pooling{dtype}`, then POST /classify with `messages`: `probs[0]`"),
            ("SGLang", f"`launch_server --model-path {name} --is-embedding`, then POST /classify: `embedding[0]`"),
            ("OpenRLHF", f"`--reward.model_name_or_path {name}`"),
        ]
    yield "## Use\n\n| | |\n|---|---|\n" + "\n".join(f"| {who} | {how} |" for who, how in rows)
