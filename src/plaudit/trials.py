"""What is measured on this machine, with a model: matrix products, which attention back ends agree, token budgets.

For `plaudit doctor`. Stands after `model`, because the fact that matters most is a model's: which back ends give what
plain transformers gives, and which one is used. Invariant: nothing is said of a back end that was not tried on this
model, in this precision, on this device, now.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from plaudit.attend import backend_ladder
from plaudit.machine import (
    INSTRUCTIONS,
    Cache,
    Embedded,
    Extra,
    Gpu,
    Processor,
    find_warnings,
    read_cache,
    read_embedded,
    read_environment,
    read_extras,
    read_gpus,
    read_processor,
    read_versions,
)
from plaudit.memory import DTYPES, choose_device, choose_dtype, find_budget
from plaudit.model import PLAIN, RewardNet, is_encoder

SHAPES = {"a 135M model": (576, 1536), "a 1B model": (2048, 8192), "an 8B model": (4096, 14336)}
"""Hidden and inner size of models that people have, for the budget when no model is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """The fastest matrix product that was seen, in GFLOP/s."""

    device: str
    dtype: str
    gflops: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """An attention back end on one model: `agrees` is None where it was not tested; `reason` says why."""

    name: str
    agrees: bool | None
    is_used: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Tokens a pack that this machine would choose for a model of that shape, now."""

    model: str
    hidden_size: int
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """The model that was looked at; `name` is None for the small random one that was made for it."""

    name: str | None
    architecture: str
    parameters: int
    dtype: str
    device: str
    context_length: int | None
    backend: str
    reason: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """All that `plaudit doctor` found; its fields are the keys of `--json`."""

    versions: dict[str, str | None]
    processor: Processor
    gpus: list[Gpu]
    auto_dtype: str
    auto_reason: str
    peaks: list[Peak]
    model: Patient
    backends: list[Backend]
    budgets: list[Budget]
    extras: list[Extra]
    embedded: Embedded
    cache: Cache
    environment: dict[str, str]
    warnings: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    hidden_size: int
    intermediate_size: int


def examine(name: str | None = None, *, dtype: str = "auto", device: str | None = None) -> Examination:
    """Look at the machine, measure it, and try every back end on a model; ModelError if it cannot be loaded."""
    processor, gpus = read_processor(), read_gpus()
    where = choose_device(device)
    chosen, auto = choose_dtype(dtype, where), choose_dtype("auto", where)
    if name is None:
        net = make_small_model(where, chosen)
    else:
        net = RewardNet.load(name, dtype=dtype, device=str(where), new_head=True)
    return Examination(
        versions=read_versions(),
        processor=processor,
        gpus=gpus,
        auto_dtype=_short(auto),
        auto_reason=explain_dtype(where, auto),
        peaks=[measure_peak(where, each) for each in DTYPES.values()],
        model=_describe(net, name),
        backends=try_backends(net),
        budgets=plan_budgets(net if name else None, where, chosen),
        extras=read_extras(),
        embedded=read_embedded(),
        cache=read_cache(),
        environment=read_environment(),
        warnings=find_warnings(processor, len(gpus)),
    )


def _describe(net: RewardNet, name: str | None) -> Patient:
    return Patient(
        name=name,
        architecture=type(net.hf).__name__,
        parameters=sum(p.numel() for p in net.hf.parameters()),
        dtype=_short(net.dtype),
        device=str(net.device),
        context_length=net.context_length,
        backend=net.backend,
        reason=net.reason,
        notes=tuple(net.notes),
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def explain_dtype(device: torch.device, dtype: torch.dtype) -> str:
    """Why `--dtype auto` chooses this precision on this device."""
    is_narrow = dtype is torch.bfloat16
    if device.type == "cuda":
        does = "multiplies bfloat16 natively" if is_narrow else "does not multiply bfloat16"
        return f"{torch.cuda.get_device_name(device)} {does}"
    having = [name for name in ("AMX", "AVX512-BF16") if getattr(torch.cpu, INSTRUCTIONS[name])()]
    if is_narrow:
        return f"this CPU multiplies bfloat16 natively ({' and '.join(having)})"
    return "this CPU has neither AVX512-BF16 nor AMX, so bfloat16 would be slower than float32"


def measure_peak(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.5) -> Peak:
    """The best matrix product of about `seconds`: square, and large enough that nothing else counts."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)

    def multiply() -> float:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    multiply()  # the first one compiles and touches the memory
    end = time.perf_counter() + seconds
    best = multiply()
    while time.perf_counter() < end:
        best = min(best, multiply())
    return Peak(device=str(device), dtype=_short(dtype), gflops=2 * size**3 / best / 1e9)


def make_small_model(device: torch.device, dtype: torch.dtype) -> RewardNet:
    """A random two-layer Llama made in memory, for a look at the back ends when no model is named."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    from plaudit.checkpoint import Checkpoint

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = LlamaForSequenceClassification(config).to(dtype)
    hf.score.float()
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    checkpoint = Checkpoint(folder=Path(), config=config.to_dict(), tensors={}, head="score.weight")
    net = RewardNet(hf, tokenizer, checkpoint)
    net.to(device).eval()
    net.choose_backend()
    return net


def try_backends(net: RewardNet) -> list[Backend]:
    """Every back end of the model's device, tested on this model now, fastest first; then the plain path."""
    ladder = (*backend_ladder(net.device), *backend_ladder(net.device, invariant=True))
    found = [_try_backend(net, name) for name in dict.fromkeys(ladder)]
    is_plain = net.backend == PLAIN
    why = net.reason if is_plain else "what the others are compared with; used where none of them agrees"
    return [*found, Backend(name=PLAIN, agrees=None, is_used=is_plain, reason=why)]


def _try_backend(net: RewardNet, name: str) -> Backend:
    if is_encoder(net.hf):
        return Backend(
            name=name, agrees=None, is_used=False, reason="not for an encoder: prompts see their completions"
        )
    fault = net.find_fault(name)
    place = "; --invariant uses it" if name in backend_ladder(net.device, invariant=True) else ""
    reason = fault or f"two rows packed and alone agree{place}"
    return Backend(name=name, agrees=fault is None, is_used=name == net.backend, reason=reason)


def plan_budgets(net: RewardNet | None, device: torch.device, dtype: torch.dtype) -> list[Budget]:
    """The budget for one model, or without one for the shapes of three sizes."""
    if net is not None:
        config = net.hf.config.get_text_config()
        tokens = find_budget(config, net.dtype, net.device)
        return [Budget(model="this model", hidden_size=int(config.hidden_size), tokens=tokens)]
    shapes = {name: _Shape(hidden_size=hidden, intermediate_size=inner) for name, (hidden, inner) in SHAPES.items()}
    return [
        Budget(model=name, hidden_size=shape.hidden_size, tokens=find_budget(shape, dtype, device))
        for name, shape in shapes.items()
    ]
