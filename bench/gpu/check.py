"""One check of everything that needs a GPU: tests, scoring and training tables, a profile. `make gpu-check` runs it.

    python bench/gpu/check.py --out OUT                  # at most 8 minutes on one H100 or H200
    python bench/gpu/check.py --device cpu --tiny        # the same code on a CPU with tiny models, under 2 minutes

Models are built from configurations with random weights, rows are random token ids: no network, no files. Every
result is printed and written to OUT/results.json and OUT/report.md as soon as it is there. Work that would not fit into
the time is left out with "skipped: time budget". A section that fails is reported with its traceback and stops nothing;
the exit code is then 1.

Sides of the tables, all with the same weights and the same token ids:
  ours       packs in which completions share their prompt
  unshared   packs without sharing
  padded     transformers: rows sorted by length, padded; FlashAttention-2 if it is there, else sdpa (Gemma 2: eager)
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path[:0] = [str(ROOT / "src")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

PEAKS = {"H100": 989e12, "H200": 989e12}
"""Dense bf16 FLOP/s of the data sheets."""

NEEDED = ("numpy", "torch", "transformers", "tokenizers", "safetensors", "pydantic", "accelerate", "peft", "pytest")
SKIPPED = "skipped: time budget"


# ---------------------------------------------------------------------------------------------------------- reporting


@dataclass
class Report:
    """What was found so far: printed, and written after every addition."""

    folder: Path
    device: torch.device
    ends: float
    results: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.time()

    def say(self, text: str = "") -> None:
        """A line of the Markdown report."""
        print(text, flush=True)
        self.lines.append(text)
        self._write()

    def put(self, section: str, value: Any) -> None:
        """A result: rows are added up in a list."""
        if isinstance(value, dict) and value.pop("is_row", False):
            self.results.setdefault(section, []).append(value)
        else:
            self.results[section] = value
        self._write()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "report.md").write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        found = {**self.results, "failures": self.failures}
        (self.folder / "results.json").write_text(json.dumps(found, indent=1, default=str), encoding="utf-8")

    def section(self, name: str, work: Callable[[], Any], *, seconds: float = 0.0) -> Any:
        """Run a part that takes about so many seconds; a failure is reported and stops nothing."""
        if self.left() < seconds:
            self.say(f"{name}: {SKIPPED} ({self.left():.0f} s left, about {seconds:.0f} needed)")
            self.results.setdefault("skipped", []).append(name)
            return None
        began = time.time()
        try:
            return work()
        except Exception:
            trace = traceback.format_exc()
            self.failures.append(name)
            self.say(f"{name}: FAILED\n\n```\n{trace}```\n")
            self.put(f"{name}: traceback", trace)
            return None
        finally:
            self.results.setdefault("seconds", {})[name] = round(time.time() - began, 1)
            free(self.device)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# -------------------------------------------------------------------------------------------------------- environment


def describe(report: Report) -> None:
    """Versions, and what these versions do not support."""
    from importlib import metadata

    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*NEEDED, "triton", "flash_attn"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    facts: dict[str, Any] = {"device": str(report.device), "cuda": torch.version.cuda}
    if report.device.type == "cuda":
        p = torch.cuda.get_device_properties(0)
        facts |= {"gpu": p.name, "memory_gib": round(p.total_memory / 2**30, 1), "capability": f"{p.major}.{p.minor}"}
    report.say("# GPU check\n")
    report.say(", ".join(f"{k} {v}" for k, v in {**facts, **versions}.items() if v))
    missing = [name for name in NEEDED if versions[name] is None]
    unsupported = find_unsupported(report.device) + [f"{name} is not installed" for name in missing]
    for sentence in unsupported or ["nothing that this check uses is missing"]:
        report.say(f"* {sentence}")
    report.put("environment", {**facts, "versions": versions, "unsupported": unsupported})


def find_unsupported(device: torch.device) -> list[str]:
    """What the installed torch and transformers cannot do, a sentence each, with the line that needs it."""
    found = []
    try:
        from torch.nn.attention.varlen import varlen_attn

        parameters = signature(varlen_attn).parameters
        if "window_size" not in parameters:
            found.append("varlen_attn has no window_size (torch < 2.11): attend.VarlenPlan fails, flex is used")
        if "enable_gqa" not in parameters:
            found.append("varlen_attn has no enable_gqa (torch < 2.12): attend.VarlenPlan leaves it out")
        if "num_splits" not in parameters:
            found.append("varlen_attn has no num_splits (torch < 2.12): the invariance section runs without it")
    except ImportError as error:
        found.append(f"no varlen_attn ({error}): attend.VarlenPlan fails, flex is used")
    try:
        from torch.nn.attention.flex_attention import BlockMask

        if "seq_lengths" not in signature(BlockMask.from_kv_blocks).parameters:
            found.append("BlockMask.from_kv_blocks has no seq_lengths: attend.FlexPlan fails, blocks is used")
    except ImportError as error:
        found.append(f"no flex_attention ({error}): attend.FlexPlan fails, blocks is used")
    try:
        from transformers import AttentionInterface, AttentionMaskInterface  # noqa: F401
        from transformers import __version__ as version

        if tuple(int(n) for n in version.split(".")[:2]) < (5, 21):
            found.append(
                f"transformers {version}: families without a classification class (Granite) do not load: "
                "loading._register_classifier needs 5.21"
            )
    except ImportError as error:
        found.append(f"{error}: plaudit.attend cannot be imported, every section with a model fails")
    if device.type == "cuda" and torch.cuda.get_device_capability()[0] < 8:
        found.append("this GPU is older than Ampere: no bfloat16 and no FlashAttention")
    if importlib.util.find_spec("triton") is None:
        found.append("triton is not installed: FlexAttention cannot be compiled for a GPU")
    return found


def measure_peak(report: Report, *, size: int) -> float:
    """FLOP/s of the best of many square matrix products in bf16, timed in tens so that the host counts for nothing."""
    device = report.device
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    best, many = 0.0, 10 if device.type == "cuda" else 1
    for _ in range(12):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(many):
            a @ b
        synchronize(device)
        best = max(best, 2.0 * size**3 * many / (time.perf_counter() - began))
    report.say(f"\nMatmul peak, measured in bf16: {best / 1e12:.3g} TFLOPS")
    report.put("peak_flops", best)
    return best


# -------------------------------------------------------------------------------------------------------------- tests


def run_tests(report: Report, *, seconds: float, tiny: bool) -> None:
    """`pytest -m gpu` in a process of its own; tests that do not begin in time are skipped."""
    told = dict(os.environ, PLAUDIT_GPU_DEADLINE=str(time.time() + seconds))
    told["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), told.get("PYTHONPATH", "")])
    # The project's own options need plugins that a bare machine may lack.
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "bench/gpu/pytest.ini"), "--rootdir", str(ROOT)]
    command += ["--confcutdir", str(ROOT / "tests/gpu"), "--import-mode=importlib", "-p", "no:cacheprovider"]
    command += ["-m", "gpu", "-v", "--tb=short", "-rs", str(ROOT / "tests/gpu")]
    if report.device.type == "cpu":
        told["PLAUDIT_GPU_TESTS"] = "cpu"
    if tiny:
        command += ["-k", "(varlen and 64-4-4) or qwen3 or bit_pattern"]
    log = report.folder / "tests.txt"
    with open(log, "w", encoding="utf-8") as file:
        try:
            # A test that hangs has a minute beyond the deadline.
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=told, timeout=seconds + 60
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    counts = count_tests(lines)
    report.put("tests", {**counts, "exit_code": code, "log": str(log)})
    report.say(
        f"\n## Tests\n\n{', '.join(f'{n} {what}' for what, n in counts.items()) or 'none ran'}; all of it: {log.name}"
    )
    for line in lines:
        if " FAILED" in line or " ERROR" in line or line.startswith("E  "):
            report.say(f"    {line[:200]}")
    if code != 0:
        raise RuntimeError(f"pytest ended with {code} (-1: it hung): {lines[-1] if lines else 'no output'}")


def count_tests(lines: Iterable[str]) -> dict[str, int]:
    """How many tests passed, failed and so on, from what `pytest -v` printed, also if it was stopped."""
    counts: dict[str, int] = defaultdict(int)
    for line in lines:
        words = line.split()
        if len(words) > 1 and "::" in words[0] and words[1] in ("PASSED", "FAILED", "SKIPPED", "ERROR"):
            counts[words[1].lower()] += 1
    return dict(counts)


# ------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Shape:
    """A model's configuration; `tokens` are those of all completions in one measurement."""

    name: str
    config: str
    sizes: dict[str, Any]
    tokens: int
    train_budget: int = 16384


COMMON = {"max_position_embeddings": 8192, "num_labels": 1, "pad_token_id": 0}
SHAPES = (
    Shape("Qwen3-0.6B", "Qwen3Config", {
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    }, 300_000),
    Shape("SmolLM2-135M", "LlamaConfig", {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    }, 600_000, 32768),
    Shape("Gemma-2-2B", "Gemma2Config", {
        "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096,
    }, 100_000, 8192),
    Shape("Llama-3.2-1B", "LlamaConfig", {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    }, 200_000),
)  # fmt: skip
SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
COMPLETIONS = (2, 8, 64)
Rows = list[list[np.ndarray[Any, np.dtype[np.int32]]]]


def make_net(shape: Shape, device: torch.device) -> Any:
    """The model with random weights in bf16, its head in fp32, made on the device."""
    import transformers
    from tokenizers import Tokenizer, models

    from plaudit.checkpoint import Checkpoint
    from plaudit.model import RewardNet

    config = getattr(transformers, shape.config)(**COMMON, **shape.sizes)
    # Without FlashAttention-2, transformers' choice: sdpa, or eager for Gemma 2, whose softcap sdpa does not compute.
    attention = "flash_attention_2" if has_flash(device) else None
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        hf = transformers.AutoModelForSequenceClassification.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )
    hf.score.float()
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    checkpoint = Checkpoint(folder=Path(), config=config.to_dict(), tensors={}, head="score.weight")
    net = RewardNet(hf, tokenizer, checkpoint)
    net.to(device).eval()
    net.choose_backend()
    return net


def has_flash(device: torch.device) -> bool:
    return device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None


def make_rows(completions: int, tokens: int, vocabulary: int, *, scale: float = 1.0) -> Rows:
    """Groups of random ids, about `tokens` in all: prompts of 200 to 600, answers of 50 to 350 tokens."""
    rng = np.random.default_rng(completions)
    rows: Rows = []
    total = 0
    while total < tokens or not rows:
        prompt = rng.integers(1, vocabulary, max(2, int(rng.integers(200, 601) * scale))).astype(np.int32)
        lengths = np.maximum(1, (rng.integers(50, 351, completions) * scale).astype(int))
        rows.append([np.concatenate([prompt, rng.integers(1, vocabulary, n).astype(np.int32)]) for n in lengths])
        total += sum(map(len, rows[-1]))
    return rows


def count_flops(net: Any, packs: Sequence[Any]) -> float:
    """Multiplications and additions of one forward: each weight matrix a token, and each query with each key it sees.

    The last feed-forward block counts for all tokens, though scores need it at the leaves alone.
    """
    config = net.hf.config.get_text_config()
    embeddings = {id(p) for m in net.hf.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    weights = sum(p.numel() for p in net.backbone.parameters() if p.ndim >= 2 and id(p) not in embeddings)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_pair = 4.0 * config.num_attention_heads * head_dim * config.num_hidden_layers
    pairs = sum(float(pack.tree.positions_T().sum()) + pack.num_unique for pack in packs)
    return 2.0 * weights * sum(pack.num_unique for pack in packs) + per_pair * pairs


# ----------------------------------------------------------------------------------------------------- the three sides


@dataclass
class Side:
    """One side's work: batches, and what runs one of them."""

    name: str
    batches: list[Any]
    run: Callable[[Any], Any]
    tokens: int
    flops: float


def pad(rows: Sequence[Any], device: torch.device) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for n, row in enumerate(rows):
        ids[n, : len(row)], mask[n, : len(row)] = row, 1
    return {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}


def score_padded_rows(net: Any, rows: Sequence[Any]) -> torch.Tensor:
    """What transformers' own classifier computes, its head in fp32 as on the other sides."""
    last = torch.tensor([len(row) - 1 for row in rows], device=net.device)
    with net.plain_attention() as hf:
        hidden = hf.base_model(**pad(rows, net.device), use_cache=False).last_hidden_state
        return hf.score(hidden[torch.arange(len(rows), device=net.device), last].float()).squeeze(-1)


def batch_rows(rows: Sequence[Any], most: int) -> list[list[Any]]:
    """Rows sorted by length, in batches of at most `most` tokens with padding."""
    batches: list[list[Any]] = []
    for row in sorted(rows, key=len):
        if not batches or (len(batches[-1]) + 1) * len(row) > most:
            batches.append([])
        batches[-1].append(row)
    return batches


def score_sides(net: Any, rows: Rows, budget: int) -> list[Side]:
    from plaudit.pack import PackSettings, build_packs

    def score_padded(batch: list[Any]) -> list[float]:
        return score_padded_rows(net, batch).tolist()

    sides = []
    for name, share in (("ours", True), ("unshared", False)):
        packs = build_packs(rows, PackSettings(budget=budget, share=share))
        tokens = sum(pack.num_unique for pack in packs)
        sides.append(Side(name, packs, lambda pack: net(pack).tolist(), tokens, count_flops(net, packs)))
    flat = [row for group in rows for row in group]
    sides.append(Side("padded", batch_rows(flat, budget), score_padded, sides[1].tokens, sides[1].flops))
    return sides


def pair_loss(scores: torch.Tensor, weight: float) -> torch.Tensor:
    """The first completion of a group is the better one of each pair."""
    return -torch.nn.functional.logsigmoid(scores[0] - scores[1:]).sum() * weight


def train_sides(net: Any, rows: Rows, budget: int) -> list[Side]:
    """Forward and backward of all groups, each side in batches of whole groups."""
    from plaudit.pack import PackSettings, build_packs

    num_pairs = sum(len(group) - 1 for group in rows)

    def learn_pack(pack: Any) -> None:
        scores, places = net(pack), defaultdict(list)
        for leaf, (group, k) in enumerate(pack.members_L):
            places[group].append((k, leaf))
        chosen = [torch.tensor([leaf for _, leaf in sorted(found)], device=scores.device) for found in places.values()]
        sum(pair_loss(scores[at], 1.0 / num_pairs) for at in chosen).backward()

    def learn_padded(groups: Rows) -> None:
        scores = score_padded_rows(net, [row for group in groups for row in group])
        at = np.cumsum([0, *map(len, groups)]).tolist()
        sum(pair_loss(scores[a:b], 1.0 / num_pairs) for a, b in pairwise(at)).backward()

    sides = []
    for name, share in (("ours", True), ("unshared", False)):
        packs = build_packs(rows, PackSettings(budget=budget, share=share, whole=True))
        tokens = sum(pack.num_unique for pack in packs)
        sides.append(Side(name, packs, learn_pack, tokens, 3 * count_flops(net, packs)))
    batches: list[Rows] = []
    for group in sorted(rows, key=lambda group: max(map(len, group))):
        width = max(map(len, group))
        if not batches or (sum(map(len, batches[-1])) + len(group)) * width > budget:
            batches.append([])
        batches[-1].append(group)
    sides.append(Side("padded", batches, learn_padded, sides[1].tokens, sides[1].flops))
    return sides


def measure_side(side: Side, device: torch.device, after: Callable[[], None] | None = None) -> dict[str, float]:
    """Seconds of one pass over all batches, and the peak memory; the largest batch is run once before."""
    side.run(side.batches[-1] if side.name == "padded" else max(side.batches, key=lambda pack: pack.size))
    if after:
        after()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for batch in side.batches:
        side.run(batch)
    if after:
        after()
    synchronize(device)
    seconds = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return {"seconds": seconds, "tokens": side.tokens, "flops": side.flops, "memory_gib": memory}


def is_memory(error: BaseException) -> bool:
    from plaudit.memory import is_out_of_memory

    return is_out_of_memory(error)


def measure_all(
    make: Callable[[int], list[Side]], budget: int, device: torch.device, after: Callable[[], None] | None = None
) -> dict[str, dict[str, float]]:
    """Every side; one that runs out of memory is tried again with half the tokens a batch, down to a quarter."""
    found: dict[str, dict[str, float]] = {}
    for n, name in enumerate(("ours", "unshared", "padded")):
        for tokens in (budget, budget // 2, budget // 4):
            ran_out = False
            try:
                found[name] = {**measure_side(make(tokens)[n], device, after), "budget": tokens}
            except (RuntimeError, MemoryError) as error:
                if not is_memory(error):
                    raise
                ran_out = True
            free(device)
            if not ran_out:
                break
    return found


HEADER = (
    "| model | K | back end | tokens/s of all completions: ours, unshared, padded | ours/padded | ours/unshared | "
    "unique tokens/s | MFU of the data sheet | MFU of the measured peak | GiB: ours, unshared, padded |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def put_row(report: Report, section: str, net: Any, name: str, k: int, total: int, sides: dict[str, Any]) -> None:
    """A line of a table."""
    peak, sheet = report.results.get("peak_flops"), sheet_peak(report)
    rate = {side: total / x["seconds"] for side, x in sides.items()}
    ours = sides.get("ours")

    def share(of: float | None) -> str:
        return f"{ours['flops'] / ours['seconds'] / of:.0%}" if ours and of else "-"

    def ratio(other: str) -> str:
        return f"{rate['ours'] / rate[other]:.2f}" if other in rate and "ours" in rate else "-"

    order = ("ours", "unshared", "padded")
    rates = " ".join(f"{rate[s]:,.0f}" if s in rate else "out of memory" for s in order)
    memory = " ".join(f"{sides[s]['memory_gib']:.1f}" if s in sides else "-" for s in order)
    unique = f"{ours['tokens'] / ours['seconds']:,.0f}" if ours else "-"
    cells = [name, k, net.backend, rates, ratio("padded"), ratio("unshared"), unique, share(sheet), share(peak), memory]
    report.say("| " + " | ".join(map(str, cells)) + " |")
    report.put(section, {"is_row": True, "model": name, "k": k, "backend": net.backend, "total_tokens": total, **sides})


def sheet_peak(report: Report) -> float | None:
    name = report.results.get("environment", {}).get("gpu") or ""
    return next((peak for gpu, peak in PEAKS.items() if gpu in name), None)


def score_table(report: Report, net: Any, shape: Shape, scale: float) -> None:
    """Scoring, K by K."""
    from plaudit.memory import find_budget

    budget = min(find_budget(net.hf.config.get_text_config(), net.dtype, net.device), 65536)
    report.say(f"\n### Scoring: {shape.name} ({net.backend}: {net.reason}; padded: {net._plain_attention})\n\n{HEADER}")
    for k in COMPLETIONS:

        def work(k: int = k) -> None:
            rows = make_rows(k, shape.tokens, shape.sizes["vocab_size"], scale=scale)
            total = sum(len(row) for group in rows for row in group)
            with torch.inference_mode():
                sides = measure_all(partial(score_sides, net, rows), budget, report.device)
            put_row(report, "scoring", net, shape.name, k, total, sides)

        report.section(f"scoring {shape.name} K={k}", work, seconds=15 if scale == 1 else 2)


def train_table(report: Report, net: Any, shape: Shape, scale: float) -> None:
    """Training steps (forward, backward, AdamW with fp32 masters), K by K."""
    optimizer = make_optimizer(net)
    report.say(f"\n### Training: {shape.name}, {shape.train_budget:,} tokens a pack\n\n{HEADER}")

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    net.train()
    try:
        for k in COMPLETIONS:

            def work(k: int = k) -> None:
                rows = make_rows(k, shape.tokens // 3, shape.sizes["vocab_size"], scale=scale)
                total = sum(len(row) for group in rows for row in group)
                sides = measure_all(partial(train_sides, net, rows), shape.train_budget, report.device, step)
                put_row(report, "training", net, shape.name, k, total, sides)

            report.section(f"training {shape.name} K={k}", work, seconds=20 if scale == 1 else 2)
    finally:
        net.eval()
        optimizer.zero_grad()
        optimizer.release()


def make_optimizer(net: Any) -> Any:
    from plaudit.masters import MasterOptimizer

    weights = [p for p in net.hf.parameters() if p.requires_grad]
    return MasterOptimizer(torch.optim.AdamW(weights, lr=1e-6, fused=True))


# ------------------------------------------------------------------------------------------------------------ profile

KINDS = (
    ("attention", ("flash", "fmha", "flex_attention", "triton_tem", "sdpa")),
    ("matrix products", ("gemm", "gemv", "cutlass", "nvjet", "xmma", "mm_", "::mm", "addmm", "bmm", "linear")),
    ("gather and scatter", ("index", "gather", "scatter")),
    ("copies", ("memcpy", "memset", "copy")),
    ("softmax and norms", ("softmax", "norm", "reduce", "mean", "pow", "rsqrt")),
    ("optimizer", ("adam", "multi_tensor", "foreach")),
)


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    name = kernel.lower()
    return next((kind for kind, marks in KINDS if any(mark in name for mark in marks)), "elementwise and the rest")


def busy_time(spans: Iterable[tuple[float, float]]) -> float:
    """How long anything ran, where spans may overlap."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def advise(share: dict[str, float], idle: float, matmul_share_of_peak: float | None) -> list[str]:
    """What to do next, from shares of the device's busy time, its idle share, and the speed of its matrix products."""
    said = []
    if idle > 0.10:
        said.append(
            f"The device waits for the host {idle:.0%} of the step: build packs and plans ahead, read scores late, "
            "or make packs larger."
        )
    if share.get("copies", 0.0) > 0.05:
        said.append(f"Copies take {share['copies']:.0%}: pin host memory, and avoid layout changes around attention.")
    if share.get("gather and scatter", 0.0) > 0.05:
        said.append(
            f"Gathering keys along paths takes {share['gather and scatter']:.0%}: try flex for this workload, or share "
            "less where prompts are short."
        )
    if share.get("attention", 0.0) > 0.30:
        said.append(f"Attention takes {share['attention']:.0%}: try FlashAttention 3, and larger segments.")
    rest = share.get("elementwise and the rest", 0.0) + share.get("softmax and norms", 0.0)
    if rest > 0.25:
        said.append(f"Norms and elementwise kernels take {rest:.0%}: compile the blocks, or fuse norm, rope and gate.")
    if share.get("optimizer", 0.0) > 0.15:
        said.append(f"The optimizer takes {share['optimizer']:.0%}: put more groups into a step.")
    if matmul_share_of_peak is not None and matmul_share_of_peak < 0.6:
        said.append(f"Matrix products run at {matmul_share_of_peak:.0%} of the measured peak: make packs larger.")
    return said or ["Nothing stands out: matrix products fill the step."]


def profile(report: Report, name: str, step: Callable[[], Any], flops: float) -> None:
    """One step under the profiler: top kernels, the device's idle share, and what to do next."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    is_cuda = report.device.type == "cuda"
    step()
    synchronize(report.device)
    began = time.perf_counter()
    step()
    synchronize(report.device)
    seconds = time.perf_counter() - began
    with record(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as recorded:
        step()
        synchronize(report.device)
    wanted = DeviceType.CUDA if is_cuda else DeviceType.CPU
    times: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    spans = []
    for event in recorded.events():
        if event.device_type != wanted or getattr(event, "is_user_annotation", False):
            continue
        took = event.time_range.elapsed_us() if is_cuda else event.self_cpu_time_total
        times[event.name] += took
        calls[event.name] += 1
        spans.append((event.time_range.start, event.time_range.end))
    busy, total = busy_time(spans) / 1e6, sum(times.values()) or 1.0
    share: dict[str, float] = defaultdict(float)
    for kernel, took in times.items():
        share[kind_of(kernel)] += took / total
    # Of the step without the profiler, which slows the host and not the kernels.
    idle = max(0.0, 1 - busy / seconds) if is_cuda else 0.0
    products = share.get("matrix products", 0.0) * busy
    peak = report.results.get("peak_flops")
    of_peak = flops / products / peak if is_cuda and products and peak else None
    top = sorted(times, key=lambda kernel: -times[kernel])[:12]
    report.say(
        f"\n### Profile: {name}\n\n{seconds * 1e3:.1f} ms a step, device busy {busy * 1e3:.1f} ms, idle {idle:.0%}\n"
    )
    report.say("| kernel | share | calls |\n|---|---|---|")
    for kernel in top:
        report.say(f"| `{kernel[:90]}` | {times[kernel] / total:.1%} | {calls[kernel]} |")
    report.say("\n" + ", ".join(f"{kind} {x:.0%}" for kind, x in sorted(share.items(), key=lambda item: -item[1])))
    advice = advise(dict(share), idle, of_peak)
    for sentence in advice:
        report.say(f"* {sentence}")
    report.put(
        f"profile {name}",
        {
            "seconds": seconds, "busy": busy, "idle": idle, "share": dict(share), "matmul_of_peak": of_peak,
            "advice": advice, "top": [(kernel, times[kernel] / total, calls[kernel]) for kernel in top],
        },
    )  # fmt: skip


def profile_both(report: Report, net: Any, shape: Shape, scale: float) -> None:
    """A scoring and a training step of pairs, one pack each."""
    rows = make_rows(2, min(shape.tokens, 24_000), shape.sizes["vocab_size"], scale=scale)

    def score() -> None:
        side = score_sides(net, rows, 1 << 20)[0]

        def step() -> None:
            with torch.inference_mode():
                for pack in side.batches:
                    side.run(pack)

        profile(report, f"scoring {shape.name}", step, side.flops)

    def train() -> None:
        optimizer = make_optimizer(net)
        side = train_sides(net, rows, shape.train_budget)[0]

        def step() -> None:
            for pack in side.batches:
                side.run(pack)
            optimizer.step()
            optimizer.zero_grad()

        try:
            profile(report, f"training {shape.name}", step, side.flops)
        finally:
            optimizer.zero_grad()
            optimizer.release()

    report.section("profile of scoring", score, seconds=10 if scale == 1 else 2)
    report.section("profile of training", train, seconds=15 if scale == 1 else 2)


# --------------------------------------------------------------------------------------------------------- invariance


def check_invariance(report: Report, shape: Shape, net: Any) -> None:
    """One completion beside others, many times: how often its score has another bit pattern.

    `aligned` is what --invariant uses, and may not fail. varlen (with one split, where it takes that) is a candidate.
    """
    from plaudit.pack import PackSettings, build_packs

    rng = np.random.default_rng(1)
    vocabulary = shape.sizes["vocab_size"]

    def random_ids(n: int) -> Any:
        return rng.integers(1, vocabulary, n).astype(np.int32)

    mine = random_ids(240)
    crowds = []
    for _ in range(12):
        cuts = (int(rng.integers(0, len(mine))) for _ in range(int(rng.integers(1, 5))))
        crowds.append([mine, *(np.concatenate([mine[:cut], random_ids(int(rng.integers(1, 150)))]) for cut in cuts)])

    def score(rows: list[Any]) -> float:
        [pack] = build_packs([rows], PackSettings(budget=1024, fixed=True))
        with torch.inference_mode():
            return float(net(pack)[pack.members_L.index((0, 0))])

    kept, found = net.backend, {}
    try:
        for name in ("aligned", "varlen"):
            if net.find_fault(name) is not None:
                found[name] = net.find_fault(name)
                continue
            net._use(name)
            with one_split() if name == "varlen" else no_change() as note:
                alone = score([mine])
                differing = sum(score(rows) != alone for rows in crowds)
            found[name] = {"trials": len(crowds), "differing": differing, "note": note}
    finally:
        net._use(kept)
    report.say("\n### One bit pattern\n")
    for name, result in found.items():
        said = (
            result
            if isinstance(result, str)
            else f"{result['differing']} of {result['trials']} differ. {result['note']}"
        )
        report.say(f"* {name}: {said}")
    report.put("invariance", found)
    if isinstance(found["aligned"], str) or found["aligned"]["differing"]:
        raise RuntimeError(f"aligned scores depend on what lies beside them: {found['aligned']}")


@contextmanager
def no_change() -> Iterator[str]:
    yield ""


@contextmanager
def one_split() -> Iterator[str]:
    """varlen_attn with num_splits=1, where this torch and this kernel take it."""
    from torch.nn.attention import varlen

    original = varlen.varlen_attn
    if "num_splits" not in signature(original).parameters:
        yield "this torch has no num_splits"
        return
    try:
        x = torch.zeros(8, 1, 64, device="cuda", dtype=torch.bfloat16)
        cu = torch.tensor([0, 8], device="cuda", dtype=torch.int32)
        original(x, x, x, cu, cu, 8, 8, num_splits=1)
    except RuntimeError as error:
        yield f"num_splits=1 is refused here ({str(error).splitlines()[0][:100]})"
        return

    def once(*args: Any, enable_gqa: bool = False, **kwargs: Any) -> Any:
        return original(*args, enable_gqa=enable_gqa, num_splits=1, **kwargs)

    varlen.varlen_attn = once
    try:
        yield "num_splits=1"
    finally:
        varlen.varlen_attn = original


# --------------------------------------------------------------------------------------------------------------- main


def shrink(shape: Shape) -> Shape:
    """The same family at a size for a CPU."""
    return Shape(shape.name, shape.config, {**shape.sizes, **SMALL}, 1500, 1024)


def run_model(report: Report, shape: Shape, *, scale: float, is_first: bool) -> None:
    net = make_net(shape, report.device)
    for note in net.notes:
        report.say(f"* {shape.name}: {note}")
    score_table(report, net, shape, scale)
    if is_first:
        profile_both(report, net, shape, scale)
        report.section("invariance", partial(check_invariance, report, shape, net), seconds=15 if scale == 1 else 2)
    train_table(report, net, shape, scale)


def parse(told: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-check"), help="folder of results"
    )
    parser.add_argument("--seconds", type=float, default=460.0, help="time for everything")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="tiny models and few tokens")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    return parser.parse_args(told)


def stop(report: Report) -> None:
    """End the process where a section runs far beyond its time: what was found is written already."""
    report.failures.append("stopped: time budget")
    report.say("\nstopped: time budget (a section took longer than expected)")
    os._exit(1)


def main(told: Sequence[str] | None = None) -> int:
    args = parse(told)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device; --device cpu --tiny runs the same code on a CPU", file=sys.stderr)
        return 2
    report = Report(args.out, torch.device(args.device), time.time() + args.seconds)
    watch = threading.Timer(args.seconds + 15, stop, [report])
    watch.daemon = True
    watch.start()
    report.section("environment", partial(describe, report))
    report.section("peak", partial(measure_peak, report, size=512 if args.tiny else 8192))
    if not args.no_tests:
        share = min(0.4 * args.seconds, report.left() - 90)
        work = partial(run_tests, report, seconds=share, tiny=args.tiny)
        report.section("tests", work, seconds=60 if not args.tiny else 5)
    report.say("\n## Scoring and training\n")
    for n, shape in enumerate(SHAPES):
        # A model has to be made and its kernels compiled before its first figure.
        work = partial(
            run_model, report, shrink(shape) if args.tiny else shape, scale=0.05 if args.tiny else 1.0, is_first=n == 0
        )
        needed = 90 if shape.config.startswith("Gemma") else 40  # FlexAttention is compiled for Gemma's softcap
        report.section(shape.name, work, seconds=3 if args.tiny else needed)
    report.say(f"\n{len(report.failures)} failures{': ' if report.failures else ''}{', '.join(report.failures)}")
    skipped = report.results.get("skipped", [])
    report.say(f"{len(skipped)} sections left out{': ' if skipped else ''}{', '.join(skipped)}")
    report.say(f"{args.seconds - report.left():.0f} s; results in {report.folder}")
    watch.cancel()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
