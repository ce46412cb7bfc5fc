"""A net, a run or a folder becomes the folder that every consumer loads: written, proven, and only then in its place.

Last room before the command line; training and `plaudit export` both pass through `publish`. A LoRA net is written as
an adapter, unless it is merged; a merged one has its base's precision if rounding the sums to it leaves the scores what
they are, else float32, and the figure is said. Invariant: a folder that is in its place has been proven, unless that
was not wanted, and what was in its place before is there still if the proof failed.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from plaudit.checkpoint import BASE_DTYPE, read_adapter, read_card, read_checkpoint, read_tensors
from plaudit.consumers import Consumer, check_folder
from plaudit.embedded import resolve_model
from plaudit.errors import ConfigError, ModelError
from plaudit.group import Completion, Group
from plaudit.loading import find_base, name_of_head, round_weights
from plaudit.lora import adapter_weights, is_adapted, save_adapter
from plaudit.memory import free_memory
from plaudit.model import RewardNet, is_encoder
from plaudit.modelcard import ModelFacts, render_page
from plaudit.proof import ProofReport, Witness, prove_folder
from plaudit.saving import drafting, rename_head, write_card
from plaudit.score import RewardModel
from plaudit.specimen import Sample, SampleRow, draw_sample, draw_starter_sample, score_exactly, score_sample

MODEL, ADAPTER, REPORT = "model", "adapter", "report.json"
"""What a run's folder holds for us."""

ROUNDING_ROWS = 64
ROUNDING = 0.02
"""How much rounding a merged model to its base's precision may move scores, as a share of their deviation."""

EXAMPLE = Group(
    prompt="What is the capital of France?", completions=(Completion(content="The capital of France is Paris."),)
)
"""What a model's page shows, since a row of the run's data may not be shown to everyone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A folder in its place: what it is, and its proof (None if none was wanted)."""

    folder: Path
    is_adapter: bool
    dtype: str
    proof: ProofReport | None
    sample: Sample
    scores: tuple[float, ...]
    computed_in: str


def publish(
    net: RewardNet,
    folder: str | Path,
    *,
    sample: Sample,
    card: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    head_prefix: str | None = None,
    base: str | Path | None = None,
    prove: bool = True,
) -> Published:
    """Write a net, its page and its proof; the folder is in its place when a fresh process got its scores from it.

    An adapted net becomes an adapter's folder for `base`; inside `lora.merging` it is a plain one. `report` holds the
    numbers of the run, for the page. ModelError, and what was there before, if the proof fails.
    """
    target, adapted = Path(folder), is_adapted(net)
    if adapted and head_prefix:
        raise ConfigError(f"head_prefix {head_prefix!r} came with an adapter, whose head peft names; merge it first")
    sample, example = _with_example(sample, net)
    with ExitStack() as stack:
        # It imports while we write.
        witness = stack.enter_context(Witness()) if prove else None
        draft = stack.enter_context(drafting(target))
        scores, computed_in = score_exactly(net, sample)
        if adapted:
            save_adapter(net, draft, base=base, card=card)
            weights = adapter_weights(net)
        else:
            net.save(draft, head_prefix=head_prefix, card=card)
            weights = rename_head(net.hf, None if is_encoder(net.hf) else net.hf.config.value_head_prefix)
        facts = ModelFacts(
            name=target.name, architecture=type(net.hf).__name__, dtype=_name(net.dtype), is_adapter=adapted,
            num_weights=sum(x.numel() for x in weights.values()), report=report or {}, example=example,
            score=scores[-1], base=str(base) if base else None,
            head=name_of_head(net.hf) if adapted else _head_of(draft),
        )  # fmt: skip
        proof = None
        if witness is not None:
            device = _choose_device(net, draft)
            proof = prove_folder(
                draft, sample, scores, weights=weights, device=device, dtype=computed_in, name=str(target),
                witness=witness,
            )  # fmt: skip
        _write_words(draft, facts, proof)
    return Published(
        folder=target, is_adapter=adapted, dtype=facts.dtype, proof=proof, sample=sample, scores=tuple(scores),
        computed_in=computed_in,
    )  # fmt: skip


def _with_example(sample: Sample, net: RewardNet) -> tuple[Sample, SampleRow]:
    """The sample with the page's example as its last row, and that row."""
    example = draw_sample([EXAMPLE], net).rows[0]
    return Sample(rows=(*(row for row in sample.rows if row != example), example)), example


def _choose_device(net: RewardNet, folder: Path) -> str:
    """That of the net, if two more copies of it fit there, in twice the precision; else the CPU."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    fits = net.device.type == "cuda" and free_memory(net.device) > 2.5 * size + 2e9
    return str(net.device) if fits else "cpu"


def _head_of(folder: Path) -> str:
    return str(read_checkpoint(folder).head).removesuffix(".weight")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write_words(draft: Path, facts: ModelFacts, proof: ProofReport | None) -> None:
    """plaudit.json with the proof in it, and the page."""
    card = read_card(draft) | ({"proof": proof.as_json()} if proof else {})
    write_card(draft, card)
    score = proof.as_loaded[-1] if proof and proof.as_loaded else facts.score
    page = render_page(replace(facts, card=card, score=score, proof=proof.sentence() if proof else None))
    (draft / "README.md").write_text(page, encoding="utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is exported: a folder with a model or an adapter in it, and the numbers of the run that made it."""

    folder: Path
    is_adapter: bool
    report: Mapping[str, Any]


def find_source(name: str) -> Source:
    """A run's folder (its adapter, else its model), a model's or an adapter's folder, or a name that stands for one."""
    run = Path(name).expanduser()
    inside = [run / part for part in (ADAPTER, MODEL) if (run / part).is_dir()]
    is_run = bool(inside) and not any((run / file).is_file() for file in ("config.json", "adapter_config.json"))
    if run.is_dir() and not is_run and not any(run.glob("*config.json")):
        raise ModelError(
            f"{name}: neither a run (with {MODEL} or {ADAPTER} in it) nor a model's folder; name one of those"
        )
    folder = inside[0] if is_run else resolve_model(name)
    report: dict[str, Any] = {}
    if is_run and (run / REPORT).is_file():
        try:
            report = json.loads((run / REPORT).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{run / REPORT}: not JSON ({error}); remove it to export without its numbers") from error
    return Source(folder=folder, is_adapter=(folder / "adapter_config.json").is_file(), report=report)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSettings:
    """How a folder is exported. `dtype` auto is the precision that it has, or for a merge, what is precise enough."""

    merge: bool = False
    head_prefix: str | None = None
    dtype: str = "auto"
    device: str | None = None
    check: bool = False
    score_position: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What came of it: the folder and its proof, each consumer's verdict if that was asked, and what is to be said."""

    published: Published
    merged: bool
    consumers: tuple[Consumer, ...]
    notes: tuple[str, ...]


def export_model(name: str, out: str | Path, settings: ExportSettings | None = None) -> Exported:
    """Write what `name` stands for to `out`, prove it, and if that is wanted ask every consumer."""
    settings, target, notes = settings or ExportSettings(), Path(out), []
    source = find_source(name)
    if target.exists() and target.resolve() == source.folder.resolve():
        raise ConfigError(f"{out}: the exported folder itself came, another one was needed; name a new one with --out")
    if settings.merge and not source.is_adapter:
        notes.append(f"{source.folder} is a whole model: there is nothing to merge")
    merged = settings.merge and source.is_adapter
    if source.is_adapter and not merged:
        published = _copy_adapter(source, target, settings)
    else:
        net = RewardModel.load(
            source.folder, dtype=_loading_dtype(source, settings), device=settings.device,
            score_position=settings.score_position,
        )  # fmt: skip
        notes += net.notes
        if merged:
            notes += _round_merged(net, source, settings)
        published = publish(
            net, target, sample=draw_starter_sample(net), report=source.report,
            head_prefix=settings.head_prefix or name_of_head(net.hf),
        )  # fmt: skip
    consumers = []
    if settings.check:
        consumers = check_folder(target, published.sample, published.scores, dtype=published.computed_in)
    return Exported(published=published, merged=merged, consumers=tuple(consumers), notes=tuple(notes))


def check_source(name: str, *, device: str | None = None, score_position: str | None = None) -> list[Consumer]:
    """Every consumer's verdict on what `name` stands for, as it is; nothing is written."""
    folder = find_source(name).folder
    is_adapter = (folder / "adapter_config.json").is_file()
    dtype = "float32" if is_adapter else dtype_of(folder)
    net = RewardModel.load(folder, dtype=dtype, device=device, score_position=score_position)
    sample = draw_starter_sample(net)
    scores, computed_in = score_exactly(net, sample)
    return check_folder(folder, sample, scores, dtype=computed_in)


def _loading_dtype(source: Source, settings: ExportSettings) -> str:
    """An adapter is merged in float32, whatever comes after; a model has the precision of its files."""
    if source.is_adapter:
        return "float32"
    return settings.dtype if settings.dtype != "auto" else dtype_of(source.folder)


def _round_merged(net: RewardNet, source: Source, settings: ExportSettings) -> list[str]:
    """Round a merged model to the precision that was asked for, or the one that its scores allow."""
    notes, dtype = [], settings.dtype
    if dtype == "auto":
        dtype, sentence = choose_merged_dtype(net, dtype_of(source.folder))
        notes.append(sentence)
    round_weights(net.backbone, getattr(torch, dtype))
    return notes


def choose_merged_dtype(net: RewardNet, wanted: str) -> tuple[str, str]:
    """Whether a model that is merged in float32 may be rounded to its base's precision; the choice, and the figure.

    A base lies on the grid of its precision, where a sum that moves a weight by less than half a step leaves it as it
    was: what small adapters learned can be lost.
    """
    if wanted == "float32":
        return wanted, "merged in float32, the precision of its base"
    share = measure_rounding(net, getattr(torch, wanted))
    figure = f"rounding the sums to {wanted}, as its base is, moves scores by {share:.1%} of their deviation"
    if share <= ROUNDING:
        return wanted, f"merged in {wanted}: {figure} ({ROUNDING:.0%} allowed)"
    return "float32", f"merged in float32, twice the size: {figure}, more than {ROUNDING:.0%}"


def measure_rounding(net: RewardNet, dtype: torch.dtype) -> float:
    """How far scores move when the float32 backbone is rounded: root mean square, as a share of their deviation."""
    sample = draw_starter_sample(net, count=ROUNDING_ROWS)
    exact = score_sample(net, sample)
    with _rounded(net, dtype):
        rounded = score_sample(net, sample)
    moved = math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(exact, rounded, strict=True)))
    spread = statistics.pstdev(exact)
    return moved / spread if moved else 0.0


@contextlib.contextmanager
def _rounded(net: RewardNet, dtype: torch.dtype) -> Iterator[None]:
    """The time in which the backbone's weights are rounded, and still computed with in float32."""
    kept = [(x, x.data) for x in net.backbone.parameters()]
    try:
        for x, data in kept:
            x.data = data.to(dtype).to(data.dtype)
        yield
    finally:
        for x, data in kept:
            x.data = data


def _copy_adapter(source: Source, target: Path, settings: ExportSettings) -> Published:
    """An adapter's folder as it is, its base named so that it is found from there, with a page and a proof."""
    if settings.head_prefix or settings.dtype != "auto":
        raise ConfigError(
            "--head-prefix and --dtype came with an adapter, whose names and precision are peft's; add --merge"
        )
    net = RewardModel.load(
        source.folder, dtype="float32", device=settings.device, score_position=settings.score_position
    )
    config, _ = read_adapter(source.folder)
    base = str(config["base_model_name_or_path"])
    if (source.folder / base).is_dir() or Path(base).is_dir():
        base = str(find_base(source.folder, base).resolve())
    sample, example = _with_example(draw_starter_sample(net), net)
    scores = tuple(score_sample(net, sample))
    facts = ModelFacts(
        name=target.name, architecture=type(net.hf).__name__, dtype=dtype_of(source.folder), is_adapter=True, base=base,
        num_weights=sum(math.prod(shape) for _, shape in read_tensors(source.folder).values()),
        report=source.report, example=example, score=scores[-1],
    )  # fmt: skip
    with ExitStack() as stack:
        witness = stack.enter_context(Witness())
        draft = stack.enter_context(drafting(target))
        for file in sorted(source.folder.iterdir()):
            if file.is_file() and file.suffix in COPIED:
                shutil.copyfile(file, draft / file.name)
        text = json.dumps({**config, "base_model_name_or_path": base}, indent=2, sort_keys=True)
        (draft / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
        proof = prove_folder(draft, sample, scores, witness=witness, dtype="float32", name=str(target))
        _write_words(draft, facts, proof)
    return Published(
        folder=target, is_adapter=True, dtype=facts.dtype, proof=proof, sample=sample, scores=scores,
        computed_in="float32",
    )  # fmt: skip


COPIED = (".json", ".safetensors", ".jinja", ".txt", ".model", ".tiktoken")
"""What an adapter's folder consists of; nothing else is taken along."""


def dtype_of(folder: Path) -> str:
    """The precision that a folder's weights have; of an adapter's, that of its base."""
    if (folder / "adapter_config.json").is_file():
        if said := read_card(folder).get(BASE_DTYPE):
            return str(said)
        folder = find_base(folder, str(read_adapter(folder)[0]["base_model_name_or_path"]))
    return read_checkpoint(folder).dtype
