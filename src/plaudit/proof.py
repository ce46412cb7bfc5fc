"""A saved folder is loaded in a fresh process by plain transformers, and has to give the scores that it was saved with.

Stands on `specimen`, below whatever saves: training and `export`. The net in memory has scored a few rows, packed;
`witness`, which knows nothing of plaudit, renders the same conversations with the folder's own tokenizer and scores
them one at a time, and padded. Tokens have to be equal, tensors equal bit for bit, and scores equal to rounding.
Invariant: `prove_folder` returns only if a stranger would get these scores from this folder.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from plaudit.checkpoint import BASE_DTYPE, read_card, read_checkpoint, read_tensors
from plaudit.errors import ConfigError, InternalError, ModelError
from plaudit.quantized import QUANTIZED
from plaudit.specimen import Sample

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.1, "float16": 0.02}
"""How far scores may be apart, relative to the largest of the sample, if both sides compute in this precision."""

WIDENED = 5e-4
"""As far, if both compute in float32 with narrower weights: constants that some families make when they are loaded
(Gemma's scale of embeddings) were rounded here and are not there, which was measured to be 1.2e-4."""

WAYS = {
    "transformers": "plain transformers",
    "peft": "transformers and peft",
    "openrlhf": "OpenRLHF's convention",
    "adapter": "transformers' own loading of adapters",
}
"""What a witness can do with a folder."""

SAME_BITS = 1e-4
"""As far, if both compute in float32 and every tensor of the files was compared and is the same bits."""

PATIENCE_S = 3600.0
ENGINES = ("ACCELERATE_", "FSDP_", "DEEPSPEED_", "TORCHELASTIC_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_")
"""How variables begin that tell a process that it is one of several; a witness is alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofReport:
    """What was proven of a folder: how it was loaded, and how far scores, tokens and tensors are from those in memory.

    `difference` is the largest one of any score, relative to the largest score. Where scores were compared in a wider
    precision than the folder's own, `as_loaded` are those of the folder as it is loaded, for which `narrow_difference`
    is measured and not judged. `equal_tensors` of `num_tensors` in the files are the same bits as those in memory.
    """

    way: str
    rows: int
    tokens: int
    difference: float
    tolerance: float
    dtype: str
    device: str
    equal_tensors: int
    num_tensors: int
    seconds: float
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    narrow_difference: float | None = None
    as_loaded: tuple[float, ...] = ()

    def sentence(self) -> str:
        """The proof in a line."""
        tensors = f"{self.equal_tensors} tensors bit for bit, " if self.equal_tensors else ""
        narrow = f"; to {self.narrow_difference:.1e} at its own precision" if self.narrow_difference is not None else ""
        return (
            f"proven by {WAYS[self.way]} in a fresh process: {tensors}{self.rows} rows token for token, scores to "
            f"{self.difference:.1e} ({self.dtype}; {self.tolerance:g} allowed){narrow}, in {self.seconds:.1f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """For plaudit.json and reports."""
        told = {**asdict(self), "versions": dict(self.versions), "notes": list(self.notes)}
        return {key: value for key, value in told.items() if key != "as_loaded"}


class Witness:
    """A fresh process that imports what it needs while its question is still being made; it answers once."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ENGINES)}
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONIOENCODING": "utf-8"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("witness.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
            env=environment | quiet,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer; ModelError if it died over the question."""
        try:
            said, _ = self._process.communicate(json.dumps(question) + "\n", timeout=PATIENCE_S)
            answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{question['folder']}: no answer came within {PATIENCE_S:,.0f} s") from error
        except (IndexError, ValueError) as error:
            self._errors.seek(0)
            words = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
            code = self._process.returncode
            why = words[-1][:300] if words else "it said nothing"
            raise ModelError(
                f"{question['folder']}: the process that was to load it ended with {code} ({why}); "
                "see that there is memory for a second copy of the model"
            ) from error
        return answer


def make_question(
    folder: Path,
    sample: Sample,
    *,
    ways: Sequence[str],
    also: Sequence[str] = ("padded",),
    device: str = "cpu",
    dtype: str = "auto",
    asked: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a witness is asked: which folder, which rows, which ways of loading it.

    `asked` holds by consumer the token ids that it would make, and the precisions to score them in.
    """
    rows = [{"messages": row.messages, "text": row.text} for row in sample.rows]
    card = read_card(folder)
    return {
        "folder": str(folder.absolute()), "rows": rows, "ways": list(ways), "also": list(also), "dtype": dtype,
        "device": device, "quantized": card.get(QUANTIZED), "base_dtype": card.get(BASE_DTYPE),
        "asked": dict(asked or {}),
    }  # fmt: skip


def choose_way(folder: Path) -> str:
    """How a folder is meant to be loaded: by peft, by transformers, or with a head of another name by OpenRLHF."""
    if (folder / "adapter_config.json").is_file():
        return "peft"
    head = read_checkpoint(folder).head or "score.weight"
    return "transformers" if head.startswith(("score.", "classifier.", "classification_head.")) else "openrlhf"


def prove_folder(
    folder: str | Path,
    sample: Sample,
    expected: Sequence[float],
    *,
    weights: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    dtype: str = "auto",
    name: str | None = None,
    witness: Witness | None = None,
) -> ProofReport:
    """Have a fresh process score the sample with the folder; ModelError, loudly, if anything is not as `expected`.

    `weights` are the tensors that were saved, by the name that they have in the file; `dtype` is what the folder is
    loaded in, as transformers names it; `name` is what errors call it. A `witness` that was started before the folder
    was written has its imports done by now.
    """
    began, where = time.perf_counter(), Path(folder)
    if len(expected) != len(sample.rows):
        raise ConfigError(f"{len(expected)} scores came for a sample of {len(sample.rows)} rows; score that sample")
    way = choose_way(where)
    with witness or Witness() as asked, ThreadPoolExecutor(1) as beside:
        question = make_question(where, sample, ways=[way], device=device, dtype=dtype)
        coming = beside.submit(asked.ask, question)
        num_equal, num_tensors, changed = compare_tensors(where, weights or {})
        answer = coming.result()
    if device != "cpu" and "out of memory" in str(answer["ways"].get(way, {}).get("error", "")).lower():
        device = "cpu"
        with Witness() as second:
            answer = second.ask({**question, "device": device})
    # bitsandbytes multiplies in its own precision, which differs by device.
    tolerance = TOLERANCE["bfloat16"] if question["quantized"] else None
    found = judge_answer(answer, way, sample, expected, tolerance=tolerance, written=True)
    if found.faults and tolerance is None and num_equal == num_tensors and found.difference <= SAME_BITS:
        # Every bit is the same, so that rounding is all that is left; a deep model's takes more than the usual.
        found = judge_answer(answer, way, sample, expected, tolerance=SAME_BITS, written=True)
    faults = [*found.faults, *_faults_of_words(answer["ways"].get(way, {})), *changed]
    if faults:
        more = f" (and {len(faults) - 1} more such findings)" if len(faults) > 1 else ""
        raise ModelError(
            f"{name or where}: the save failed: {faults[0]}{more}; do not use this folder, and save the model again"
        )
    return ProofReport(
        way=way, rows=len(sample.rows), tokens=sample.num_tokens, difference=found.difference,
        tolerance=found.tolerance, dtype=found.dtype, device=device, equal_tensors=num_equal, num_tensors=num_tensors,
        seconds=time.perf_counter() - began, notes=found.notes,
        narrow_difference=found.narrow_difference, as_loaded=tuple(answer["ways"][way].get("narrow") or ()),
        versions={library: str(answer[library]) for library in ("torch", "transformers")},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What is wrong with an answer (nothing, if `faults` is empty), what else there is to say, and the difference."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]
    difference: float
    tolerance: float
    dtype: str
    narrow_difference: float | None = None


def judge_answer(
    answer: Mapping[str, Any],
    way: str,
    sample: Sample,
    expected: Sequence[float],
    *,
    tolerance: float | None = None,
    written: bool = False,
) -> Judgement:
    """Compare a witness's answer with what is known here; `written` is a folder of ours, which is held to more."""
    if answer["plaudit"]:
        raise InternalError(f"the witness imported {answer['plaudit'][0]}, so it is no stranger to the folder")
    said: Mapping[str, Any] = answer["ways"].get(way, {})
    dtype = str(said.get("dtype", "float32"))
    is_wider = dtype == "float32" != said.get("own_dtype", "float32")
    usual = WIDENED if is_wider else TOLERANCE.get(dtype, 0.1)
    allowed = usual if tolerance is None else tolerance
    faults = [*_faults_of_tokens(answer, sample), *_faults_of_loading(said, way)]
    apart = measure_difference(said["scores"], expected) if "scores" in said else math.inf
    is_apart = "scores" in said and not apart <= allowed
    # OpenRLHF reads by the attention mask. Of a foreign folder, only the scores say where it is meant to be read.
    if written or (is_apart and way != "openrlhf"):
        faults += _faults_of_pad(answer, sample)
    if is_apart:
        faults.append(_tell_scores(said["scores"], expected, apart, allowed))
    padded = said.get("padded", {})
    if "error" in padded:
        faults.append(f"a padded batch fails ({padded['error']})")
    elif padded and not faults:
        mine = [expected[n] for n in padded["rows"]]
        difference = measure_difference(padded["scores"], mine, scale=_scale(expected))
        if not difference <= allowed:
            faults.append("padded in a batch, " + _tell_scores(padded["scores"], mine, difference, allowed))
    notes = () if said.get("shipped", True) else ("transformers ships no such class: its generic one was used",)
    narrow = measure_difference(said["narrow"], expected) if said.get("narrow") else None
    return Judgement(
        faults=tuple(faults),
        notes=notes,
        difference=apart,
        tolerance=allowed,
        dtype=dtype,
        narrow_difference=narrow,
    )


def _faults_of_tokens(answer: Mapping[str, Any], sample: Sample) -> Iterator[str]:
    if "error" in answer:
        yield f"its tokenizer cannot be used ({answer['error']})"
        return
    for number, (row, ids) in enumerate(zip(sample.rows, answer["ids"], strict=True)):
        if list(row.ids) != ids:
            at = next(
                (n for n, (a, b) in enumerate(zip(row.ids, ids, strict=False)) if a != b), min(len(row.ids), len(ids))
            )
            yield (
                f"row {number} of the sample has {len(ids)} tokens where {len(row.ids)} were scored, and they differ "
                f"from token {at} on: its chat template or its vocabulary is not the one that was used"
            )
            return


def _faults_of_pad(answer: Mapping[str, Any], sample: Sample) -> Iterator[str]:
    if (pad := answer.get("pad")) is not None and any(row.ids[-1] == pad for row in sample.rows):
        yield f"its pad token ({pad}) ends a conversation, so a score would be read one token too early"


def _faults_of_loading(said: Mapping[str, Any], way: str) -> Iterator[str]:
    if "error" in said or not said:
        yield f"{WAYS[way]} cannot load it ({said.get('error', 'it was not asked')})"
        return
    for what, names in said["loading"].items():
        if names:
            some = f"{len(names)} tensors are" if len(names) > 1 else "a tensor is"
            yield f"{some} {what} ({names[0]})"
    lost = [name for name in said.get("base", {}).get("missing", ()) if not name.startswith(HEADS)]
    if lost:
        yield f"its base lacks {len(lost)} tensors ({lost[0]})"


def _faults_of_words(said: Mapping[str, Any]) -> Iterator[str]:
    """What transformers does not mind and others do; only a folder that we write is held to that."""
    if said.get("labels", 1) != 1:
        yield f"its config.json says {said['labels']} labels, so it is no reward model to whoever reads that"
    if said.get("problem", "regression") != "regression":
        yield f"its config.json says problem_type {said['problem']}, so servers would squash the score"


HEADS = ("score.", "classifier.", "classification_head.", "head.")
"""How the names of heads begin, which an adapter brings along."""


def _tell_scores(theirs: Sequence[float], mine: Sequence[float], apart: float, allowed: float) -> str:
    worst = max(range(len(mine)), key=lambda n: abs(theirs[n] - mine[n]) if math.isfinite(theirs[n]) else math.inf)
    return (
        f"its scores are others: {theirs[worst]:.6g} where memory had {mine[worst]:.6g} "
        f"({apart:.1e} of the largest score, {allowed:g} allowed)"
    )


def _scale(scores: Sequence[float]) -> float:
    return max(map(abs, scores), default=0.0)


def measure_difference(theirs: Sequence[float], mine: Sequence[float], *, scale: float | None = None) -> float:
    """The largest difference of two lists of scores, relative to the largest score; infinite if one is no number."""
    if not all(map(math.isfinite, [*theirs, *mine])):
        return math.inf
    largest = max((abs(a - b) for a, b in zip(theirs, mine, strict=True)), default=0.0)
    whole = _scale(mine) if scale is None else scale
    if largest == 0:
        return 0.0
    return largest / whole if whole else math.inf


def compare_tensors(folder: Path, weights: Mapping[str, Tensor]) -> tuple[int, int, list[str]]:
    """How many tensors of the folder's files are the given ones, how many there are, and what is not as given."""
    from safetensors import safe_open

    files = read_tensors(folder)
    changed, equal = [], 0
    for file in sorted({file for file, _ in files.values()}):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name in weights:
                    mine, saved = weights[name], tensors.get_tensor(name)
                    if saved.dtype == mine.dtype and torch.equal(saved, mine.detach().to(saved.device)):
                        equal += 1
                    else:
                        changed.append(name)
    faults = [f"{len(changed)} of its tensors are not the ones in memory ({changed[0]})"] if changed else []
    # A family whose files have other names than its model has names on both sides that the other lacks.
    lost = [] if files.keys() - weights.keys() else sorted(weights.keys() - files.keys() - _shared(weights, files))
    if lost:
        faults.append(f"{len(lost)} of the tensors in memory are not in it ({lost[0]})")
    return equal, len(files), faults


def _shared(weights: Mapping[str, Tensor], files: Mapping[str, Any]) -> set[str]:
    """Names of tensors whose memory is that of one in the files: it is written once."""
    there = {weights[name].data_ptr() for name in weights.keys() & files.keys()}
    return {name for name, x in weights.items() if x.data_ptr() in there}
