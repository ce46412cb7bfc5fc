"""Who can use a folder as it is: every consumer of reward models asked, or held against what it documents.

Stands on `proof`. transformers, peft, TRL's way of asking and a pipeline really load the folder, in a fresh process;
OpenRLHF's arithmetic is done on the folder there, since its own code needs engines of its own; servers (vLLM, SGLang)
are held against the conventions that they document: which architecture, which tensors, which words in config.json.
Invariant: a consumer that is told to be fine was run on the folder, or every condition it is known to have holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.checkpoint import Checkpoint, read_checkpoint
from plaudit.proof import Judgement, Witness, choose_way, judge_answer, make_question, measure_difference
from plaudit.specimen import Sample

SGLANG = (
    "LlamaForSequenceClassification",
    "Gemma2ForSequenceClassification",
    "Qwen2ForSequenceClassification",
    "Qwen3ForSequenceClassification",
)
"""The architectures with a score that SGLang has classes for."""

ENCODERS = ("Bert", "Roberta", "XLMRoberta", "ModernBert", "Gte")
"""Encoders whose own classification heads vLLM has classes for."""

RAN, READ = "ran", "held against its documents"
MERGED = "it takes whole models; export this adapter with --merge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumer:
    """One consumer: whether the folder is fine for it, why, and whether it was run or its conventions were read."""

    name: str
    ok: bool
    why: str
    how: str


def check_folder(
    folder: str | Path,
    sample: Sample,
    expected: Sequence[float],
    *,
    dtype: str = "auto",
) -> list[Consumer]:
    """Every consumer's verdict on the folder; `expected` are the sample's scores by plaudit, computed in `dtype`."""
    where = Path(folder)
    is_adapter = choose_way(where) == "peft"
    ways = ["peft", "adapter"] if is_adapter else ["transformers", "openrlhf"]
    also = ("padded", "trl", "pipeline")
    with Witness() as asked:
        answer = asked.ask(make_question(where, sample, ways=ways, also=also, device="cpu", dtype=dtype))
    judged = {way: judge_answer(answer, way, sample, expected) for way in ways}
    if is_adapter:
        return [
            _ran("transformers + peft", judged["peft"], sample),
            _ran("transformers alone", judged["adapter"], sample),
            *(Consumer(name=name, ok=False, why=MERGED, how=READ) for name in ("TRL", "vLLM", "SGLang", "OpenRLHF")),
        ]
    said, plain = answer["ways"]["transformers"], judged["transformers"]
    checkpoint = read_checkpoint(where)
    return [
        _ran("transformers", plain, sample),
        _asked("pipeline", said.get("pipeline", {}), plain, expected),
        _asked("TRL", said.get("trl", {}), plain, expected),
        _ran_openrlhf(answer["ways"]["openrlhf"], judged["openrlhf"]),
        _read("vLLM", list(_faults_for_vllm(checkpoint)), _hints_for_vllm(checkpoint, said)),
        _read("SGLang", list(_faults_for_sglang(checkpoint)), "POST /classify gives the raw score as embedding[0]"),
    ]


def _ran(name: str, found: Judgement, sample: Sample) -> Consumer:
    if found.faults:
        return Consumer(name=name, ok=False, why=found.faults[0], how=RAN)
    notes = "".join(f"; {note}" for note in found.notes)
    why = f"all tensors in place, {len(sample.rows)} rows, scores to {found.difference:.1e}{notes}"
    return Consumer(name=name, ok=True, why=why, how=RAN)


def _asked(name: str, said: Mapping[str, Any], plain: Judgement, expected: Sequence[float]) -> Consumer:
    """One that asks a model which transformers has loaded."""
    rows = said.get("rows", [])
    if plain.faults or "error" in said:
        return Consumer(name=name, ok=False, why=said.get("error") or plain.faults[0], how=RAN)
    if not rows:
        why = "the tokenizer has no chat template, so what it would render is up to its user"
        return Consumer(name=name, ok=False, why=why, how=RAN)
    apart = measure_difference(said["scores"], [expected[n] for n in rows], scale=max(map(abs, expected)))
    if not apart <= plain.tolerance:
        why = f"its scores are others ({apart:.1e} of the largest score, {plain.tolerance:g} allowed)"
        return Consumer(name=name, ok=False, why=why, how=RAN)
    hint = "" if said.get("as_it_is", True) else "; pass add_special_tokens=False, or BOS comes twice"
    return Consumer(name=name, ok=True, why=f"raw scores to {apart:.1e} on {len(rows)} rows{hint}", how=RAN)


def _ran_openrlhf(said: Mapping[str, Any], found: Judgement) -> Consumer:
    name = "OpenRLHF"
    if found.faults:
        return Consumer(name=name, ok=False, why=found.faults[0], how=RAN)
    mean, std = said.get("mean"), said.get("std")
    if (mean is None) != (std is None):
        why = "config.json has one of mean and std, and it reads both or neither"
        return Consumer(name=name, ok=False, why=why, how=RAN)
    normal = f"normalises by {mean:.4g}, {std:.4g} when told to" if mean is not None else "no mean and std stored"
    why = f"its convention: head {said['prefix']!r}, scores to {found.difference:.1e}; {normal}"
    return Consumer(name=name, ok=True, why=why, how=RAN)


def _read(name: str, faults: Sequence[str], hint: str) -> Consumer:
    return Consumer(name=name, ok=not faults, why=faults[0] if faults else hint, how=READ)


def _faults_for_vllm(checkpoint: Checkpoint) -> Iterator[str]:
    """An architecture that ends in ForSequenceClassification, one head `score` without bias, no activation on it."""
    architecture = checkpoint.architecture
    if not architecture.endswith("ForSequenceClassification"):
        yield f"its architecture is {architecture}, and only *ForSequenceClassification is served with scores"
    yield from _faults_of_head(checkpoint, is_own=architecture.startswith(ENCODERS))
    if checkpoint.config.get("problem_type") != "regression":
        yield "without problem_type regression it puts a sigmoid on the score; ask with use_activation=false"


def _faults_for_sglang(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.architecture not in SGLANG:
        had = ", ".join(name.removesuffix("ForSequenceClassification") for name in SGLANG)
        yield f"it has no class for {checkpoint.architecture}; those with a score are {had}"
    yield from _faults_of_head(checkpoint, is_own=False)


def _faults_of_head(checkpoint: Checkpoint, *, is_own: bool) -> Iterator[str]:
    """What both servers need of tensors and labels; `is_own` leaves the head to the family's own class."""
    config, tensors = checkpoint.config, checkpoint.tensors
    if not is_own:
        if "score.weight" not in tensors:
            yield f"its head is {checkpoint.head or 'not there'}, and score.weight is looked for"
        if "score.bias" in tensors:
            yield "its head has a bias, which has no place there"
    if checkpoint.head_rows not in (None, 1):
        yield f"its head has {checkpoint.head_rows} outputs"
    labels = config.get("id2label")
    num_labels = len(labels) if labels is not None else config.get("num_labels", 2)
    if num_labels != 1:
        yield f"its config.json says {num_labels} labels (id2label), and a reward has 1"


def _hints_for_vllm(checkpoint: Checkpoint, said: Mapping[str, Any]) -> str:
    """What its user should know."""
    hints = ["POST /classify gives the raw score as probs[0]"]
    if not said.get("pipeline", {}).get("as_it_is", True):
        hints.append("send messages, not rendered text (BOS would come twice)")
    if str(checkpoint.config.get("dtype", checkpoint.config.get("torch_dtype"))) == "float32":
        hints.append("start it with --dtype float32, since auto halves it")
    return "; ".join(hints)
