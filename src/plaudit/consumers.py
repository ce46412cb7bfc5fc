"""Which consumers score a folder as plaudit does: what was run, and what follows from a consumer's conventions.

Stands on `proof`. In a fresh process, transformers and peft load the folder, and a pipeline is run. What another
consumer would do is done there by its convention: the tokens that it would make of a conversation, and the precision
that it would load the folder in, since those decide its scores; none of its own code is run. vLLM is given a yes only
for architectures that were tried in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit import transformers4
from plaudit.checkpoint import Checkpoint, read_checkpoint
from plaudit.ends import MOVED
from plaudit.errors import ModelError
from plaudit.loading import load_tokenizer
from plaudit.proof import Judgement, Witness, choose_way, judge_answer, make_question, measure_difference
from plaudit.saving import CROSS_ENCODER
from plaudit.specimen import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SGLANG = (
    "LlamaForSequenceClassification",
    "Gemma2ForSequenceClassification",
    "Qwen2ForSequenceClassification",
    "Qwen3ForSequenceClassification",
)
"""The architectures with a score that SGLang has classes for."""

ENCODERS = ("Bert", "Roberta", "XLMRoberta", "ModernBert", "Gte")
"""Encoders whose own classification heads vLLM has classes for."""

TRIED_IN_VLLM = frozenset(
    f"{family}ForSequenceClassification"
    for family in (
        "Bert", "GPT2", "GPTNeoX", "Gemma2", "Granite", "Llama", "Mistral", "Mixtral", "ModernBert", "OPT", "Olmo2",
        "Phi3", "Qwen2", "Qwen3", "Roberta",
    )
)  # fmt: skip
"""Architectures of which a tiny model gave the scores of transformers in vLLM 0.32 (float32, to 7.2e-5)."""

VLLM_OVERRIDES = {
    "Gemma3TextForSequenceClassification": (
        '--hf-overrides \'{"architectures": ["Gemma3ForCausalLM"]}\' --convert classify'
    )
}
"""Architectures that vLLM 0.32 loads only when it is told of another one, with which the scores were right."""

FAIL_IN_VLLM = ("Qwen3_5",)
"""How the names of architectures begin that vLLM 0.32 failed on, by any name."""

RAN, CONVENTION = "ran", "by convention"
MERGED = "it takes whole models; export this adapter with --merge"
LOADED = "loaded"
"""The precision that the scores to compare with were computed in."""

NORMALISING = (
    "leave reward.normalize_enable off: under transformers 5 its loader leaves mean and std uninitialised "
    "(only the arithmetic was checked here)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumer:
    """One consumer: whether the folder is fine for it (None: nobody has tried), why, and how that is known.

    `difference` is the largest one between its scores and ours, on the tokens that it would make; `own_difference` the
    same in `own_dtype`, the precision that it would load the folder in unless it is told another.
    """

    name: str
    ok: bool | None
    why: str
    how: str
    difference: float | None = None
    own_dtype: str | None = None
    own_difference: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """A consumer's scores beside ours, on the same conversations."""

    scores: Sequence[float]
    expected: Sequence[float]
    tolerance: float
    scale: float

    @property
    def difference(self) -> float:
        return max((abs(a - b) for a, b in zip(self.scores, self.expected, strict=True)), default=0.0)

    @property
    def is_exact(self) -> bool:
        return measure_difference(self.scores, self.expected, scale=self.scale) <= self.tolerance

    @property
    def moved(self) -> float:
        gaps = [a - b for a, b in zip(self.scores, self.expected, strict=True)]
        spread = statistics.pstdev(self.expected)
        return statistics.pstdev(gaps) / spread if spread else 0.0


def check_folder(
    folder: str | Path,
    sample: Sample,
    expected: Sequence[float],
    *,
    dtype: str = "auto",
) -> list[Consumer]:
    """Every consumer's verdict on the folder; `expected` are the sample's scores by plaudit, computed in `dtype`."""
    where = Path(folder)
    if choose_way(where) == "peft":
        return _check_adapter(where, sample, expected, dtype)
    checkpoint = read_checkpoint(where)
    chats = [n for n, row in enumerate(sample.rows) if row.messages is not None]
    asked = _ask(where, checkpoint, [sample.rows[n].messages or () for n in chats])
    with Witness() as witness:
        ways, also = ("transformers", "openrlhf"), ("padded", "trl", "pipeline")
        question = make_question(where, sample, ways=ways, also=also, device="cpu", dtype=dtype, asked=asked)
        answer = witness.ask(question)
    said, other = answer["ways"]["transformers"], answer["ways"]["openrlhf"]
    plain = judge_answer(answer, "transformers", sample, expected)
    by_convention = judge_answer(answer, "openrlhf", sample, expected)
    judge = _Judge(checkpoint, said, plain, list(expected), chats, asked)
    return [
        _ran("transformers", plain, sample, said, expected),
        _check_transformers_4(where, checkpoint, plain),
        judge.asked_in_process("pipeline", RAN),
        judge.asked_in_process("TRL", CONVENTION, key="trl"),
        judge.openrlhf(other, by_convention),
        judge.vllm(),
        judge.sglang(),
        judge.verl(),
        judge.cross_encoder(),
    ]


def _check_adapter(where: Path, sample: Sample, expected: Sequence[float], dtype: str) -> list[Consumer]:
    with Witness() as witness:
        question = make_question(where, sample, ways=["peft", "adapter"], also=(), device="cpu", dtype=dtype)
        answer = witness.ask(question)
    names = ("TRL", "vLLM", "SGLang", "OpenRLHF", "verl", "CrossEncoder")
    return [
        *(
            _ran(name, judge_answer(answer, way, sample, expected), sample, answer["ways"].get(way, {}), expected)
            for name, way in (("transformers + peft", "peft"), ("transformers alone", "adapter"))
        ),
        *(Consumer(name=name, ok=False, why=MERGED, how=CONVENTION) for name in names),
    ]


def _ask(where: Path, checkpoint: Checkpoint, conversations: Sequence[Any]) -> dict[str, Any]:
    """By consumer: the token ids that it would make of each conversation, and the precisions to score them in."""
    try:
        tokenizer = load_tokenizer(where)
    except ModelError:
        return {}  # the process that loads the folder will say it
    if not tokenizer.chat_template:
        return {}
    own = checkpoint.dtype
    texts = [
        str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=False))
        for turns in conversations
    ]
    served = _dtype_in_vllm(checkpoint, own)
    rows = {
        "vLLM": ([_encode(tokenizer, text) for text in texts], served),
        "SGLang": ([_encode(tokenizer, text, add=True) for text in texts], own),
        "OpenRLHF": ([encode_for_openrlhf(tokenizer, text) for text in texts], "bfloat16"),
        "verl": ([encode_for_verl(tokenizer, text) for text in texts], served),
        "CrossEncoder": ([_encode(tokenizer, text) for text in texts], own),
    }
    return {name: {"ids": ids, "dtypes": [LOADED, dtype]} for name, (ids, dtype) in rows.items()}


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, add: bool = False) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=add)["input_ids"]]


def encode_for_openrlhf(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """OpenRLHF (3c3be62) cuts line breaks off the end, and ends a text with EOS; it then reads at its last token."""
    text, eos = text.rstrip("\n"), tokenizer.eos_token
    return _encode(tokenizer, text if not eos or text.endswith(eos) else f"{text} {eos}")


def encode_for_verl(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """verl's reward loop cuts BOS off a rendered text, expecting that the server's tokenizer puts one there."""
    bos = tokenizer.bos_token
    return _encode(tokenizer, text[len(bos) :] if bos and text.startswith(bos) else text, add=True)


def _dtype_in_vllm(checkpoint: Checkpoint, own: str) -> str:
    """What `--dtype auto` makes of it: 16 bits for float32, and no float16 for families that overflow in it."""
    if own != "float32":
        return own
    return "bfloat16" if checkpoint.architecture.startswith(("Gemma2", "Gemma3", "Glm4")) else "float16"


def _ran(name: str, found: Judgement, sample: Sample, said: Mapping[str, Any], expected: Sequence[float]) -> Consumer:
    if found.faults:
        return Consumer(name=name, ok=False, why=found.faults[0], how=RAN)
    notes = "".join(f"; {note}" for note in found.notes)
    why = f"all tensors in place, {len(sample.rows)} rows, scores to {found.difference:.1e}{notes}"
    narrow = said.get("narrow")
    return Consumer(
        name=name, ok=True, why=why, how=RAN, difference=_largest(said["scores"], expected),
        own_dtype=said.get("own_dtype"), own_difference=_largest(narrow or said["scores"], expected),
    )  # fmt: skip


def _largest(scores: Sequence[float], expected: Sequence[float]) -> float:
    return max((abs(a - b) for a, b in zip(scores, expected, strict=True)), default=0.0)


def _check_transformers_4(where: Path, checkpoint: Checkpoint, plain: Judgement) -> Consumer:
    name = "transformers 4"
    faults = [*(plain.faults[:1]), *transformers4.find_faults(where)]
    why = faults[0] if faults else "config.json and the tokenizer say all in the places that it reads, too"
    if not faults and checkpoint.config.get("attn_logit_softcapping"):
        why += "; load it with attn_implementation='eager', its default leaves the soft cap out"
    return Consumer(name=name, ok=not faults, why=why, how=CONVENTION)


@dataclass(frozen=True, slots=True)
class _Judge:
    """What is needed to judge a consumer: the folder, what transformers made of it, and the scores to compare with."""

    checkpoint: Checkpoint
    said: Mapping[str, Any]
    plain: Judgement
    expected: list[float]
    chats: list[int]
    asked: Mapping[str, Any]

    @property
    def scale(self) -> float:
        return max(map(abs, self.expected), default=0.0)

    def tried(self, scores: Sequence[float], rows: Sequence[int] | None = None) -> _Tried:
        chosen = self.chats if rows is None else rows
        return _Tried(
            scores=scores, expected=[self.expected[n] for n in chosen], tolerance=self.plain.tolerance, scale=self.scale
        )

    def judged(
        self, name: str, how: str, exact: _Tried, own: _Tried | None, own_dtype: str | None, hints: Sequence[str]
    ) -> Consumer:
        """Yes if its scores are the same judgement as ours: on its tokens, and at its precision."""
        told = f"raw scores to {exact.difference:.1e} on {len(exact.scores)} rows"
        ok = exact.is_exact or exact.moved <= MOVED
        if not exact.is_exact:
            told = f"its scores are others, by up to {exact.difference:.1e} ({exact.moved:.0%} of their deviation)"
        if ok and own is not None and own.moved > MOVED:
            ok = False
            told = (
                f"at {own_dtype} its scores are others, by up to {own.difference:.1e} "
                f"({own.moved:.0%} of their deviation); load it in float32"
            )
        return Consumer(
            name=name, ok=ok, why="; ".join([told, *hints]), how=how, difference=exact.difference,
            own_dtype=own_dtype, own_difference=own.difference if own else None,
        )  # fmt: skip

    def asked_in_process(self, name: str, how: str, key: str | None = None) -> Consumer:
        """One that asks a model which transformers has loaded, by text."""
        said = self.said.get(key or name, {})
        rows = said.get("rows", [])
        if self.said.get("error") or "scores" not in self.said or "error" in said or self.has_other_tensors:
            why = said.get("error") or (self.plain.faults or ("it was not asked",))[0]
            return Consumer(name=name, ok=False, why=why, how=how)
        if not rows:
            why = "the tokenizer has no chat template, so what it would render is up to its user"
            return Consumer(name=name, ok=False, why=why, how=how)
        exact = self.tried(said["scores"], rows)
        if not exact.is_exact:
            why = (
                f"its scores are others ({exact.difference:.1e}; largest score {self.scale:.3g}, "
                f"{exact.tolerance:g} of it allowed)"
            )
            return Consumer(name=name, ok=False, why=why, how=how, difference=exact.difference)
        own_dtype, narrow = self.said["own_dtype"], self.said.get("narrow")
        own = self.tried([narrow[n] for n in rows], rows) if narrow else exact
        hints = [] if said.get("as_it_is", True) else ["pass add_special_tokens=False, or BOS comes twice"]
        return self.judged(name, how, exact, own, own_dtype, hints)

    @property
    def has_other_tensors(self) -> bool:
        """Whether tensors are missing, left over or of another shape: transformers then scores with random ones."""
        return any(self.said.get("loading", {}).values())

    def by_tokens(
        self, name: str, faults: Sequence[str], hints: Sequence[str], answers: Mapping[str, Any] | None = None
    ) -> Consumer:
        """One whose tokens were made by its convention, and scored by transformers (or by `answers`)."""
        if faults:
            return Consumer(name=name, ok=False, why=faults[0], how=CONVENTION)
        given = self.said.get("asked", {}) if answers is None else answers
        if "error" in given:
            return Consumer(name=name, ok=False, why=str(given["error"]), how=CONVENTION)
        scores = given.get(name, {})
        if not scores or not self.chats:
            told = ["no conversation was tried, since the tokenizer has no chat template"]
            return Consumer(name=name, ok=True, why="; ".join([*hints, *told]), how=CONVENTION)
        [own_dtype] = [dtype for dtype in self.asked[name]["dtypes"] if dtype != LOADED]
        return self.judged(
            name, CONVENTION, self.tried(scores[LOADED]), self.tried(scores[own_dtype]), own_dtype, hints
        )

    def openrlhf(self, said: Mapping[str, Any], found: Judgement) -> Consumer:
        name, (mean, std) = "OpenRLHF", (said.get("mean"), said.get("std"))
        faults = list(found.faults)
        if (mean is None) != (std is None):
            faults.append("config.json has one of mean and std, and it reads both or neither")
        if faults:
            return Consumer(name=name, ok=False, why=faults[0], how=CONVENTION)
        hints = [f"head {said['prefix']!r}", NORMALISING]
        if mean is not None:
            hints.insert(1, f"(score - {mean:.4g}) / {std:.4g} when told to normalise")
        if self.ends_elsewhere(name):
            hints.insert(0, "it reads at EOS, before the line break that the chat template ends with")
        return self.by_tokens(name, (), hints, said.get("asked", {}))

    def ends_elsewhere(self, name: str) -> bool:
        """Whether its last tokens are others than those that vLLM, TRL and transformers read at."""
        mine, theirs = (self.asked.get(key, {}).get("ids", []) for key in ("vLLM", name))
        return any(a[-1:] != b[-1:] for a, b in zip(mine, theirs, strict=True))

    def vllm(self) -> Consumer:
        found = self.by_tokens("vLLM", [*_faults_for_vllm(self.checkpoint), *self.plain_faults()], self.vllm_hints())
        return self.held_against_tests(found)

    def held_against_tests(self, found: Consumer) -> Consumer:
        """A yes for vLLM rests on the architecture having been tried there."""
        architecture = self.checkpoint.architecture
        if not found.ok:
            return found
        if architecture.startswith(FAIL_IN_VLLM):
            return replace(found, ok=False, why=f"vLLM 0.32 fails to load {architecture}")
        if override := VLLM_OVERRIDES.get(architecture):
            return replace(found, why=f"with {override}; {found.why}")
        if architecture not in TRIED_IN_VLLM:
            return replace(found, ok=None, why=f"not tested: nobody has tried {architecture} in vLLM; {found.why}")
        return found

    def plain_faults(self) -> list[str]:
        """Why scores by transformers are no scores of this folder."""
        if "error" in self.said or self.has_other_tensors:
            return list(self.plain.faults[:1])
        return []

    def vllm_hints(self) -> list[str]:
        hints = ["POST /classify gives the raw score as probs[0]"]
        if not self.said.get("pipeline", {}).get("as_it_is", True):
            hints.append("send messages, not rendered text (BOS would come twice)")
        if self.checkpoint.dtype == "float32":
            hints.append("start it with --dtype float32, since auto halves it")
        return hints

    def sglang(self) -> Consumer:
        hints = ["POST /classify gives the raw score as embedding[0]"]
        if not self.said.get("pipeline", {}).get("as_it_is", True):
            hints.append("send input_ids, not rendered text (BOS would come twice)")
        return self.by_tokens("SGLang", [*_faults_for_sglang(self.checkpoint), *self.plain_faults()], hints)

    def verl(self) -> Consumer:
        """Its reward loop, which asks a vLLM server; its critic reads the token ids of a rollout."""
        hints = ["its reward loop, through vLLM"]
        if self.begins_elsewhere("verl"):
            hints.append(
                "it cuts bos_token off the rendered text, and this tokenizer puts none back: "
                "for verl, set bos_token to null in a copy of tokenizer_config.json"
            )
        faults = [*_faults_for_vllm(self.checkpoint), *self.plain_faults()]
        return self.held_against_tests(self.by_tokens("verl", faults, hints))

    def begins_elsewhere(self, name: str) -> bool:
        mine, theirs = (self.asked.get(key, {}).get("ids", []) for key in ("vLLM", name))
        return any(a[:1] != b[:1] for a, b in zip(mine, theirs, strict=True))

    def cross_encoder(self) -> Consumer:
        words = self.checkpoint.config.get("sentence_transformers")
        given = words.get("activation_fn") if isinstance(words, dict) else None
        faults = self.plain_faults()
        if given != CROSS_ENCODER["activation_fn"]:
            faults.append("it puts a sigmoid on the score; pass activation_fn=torch.nn.Identity()")
        return self.by_tokens(
            "CrossEncoder", faults, ["give predict() messages: it wraps texts and pairs into turns of its own"]
        )


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
