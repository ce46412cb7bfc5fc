"""A model folder, read without loading it: which head it carries, or the sentence that says why it cannot score.

Stands above `model`. Only headers are read (safetensors lists its tensors in a JSON header), so a wrong folder is
refused before gigabytes move. Knows the layouts of transformers and TRL, OpenRLHF (`value_head_prefix`, `mean`, `std`),
and LoRA adapters of either. Invariant: a Checkpoint names exactly one head of one row, or says that there is none.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from plaudit.errors import ModelError

HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight", "value_head.weight")
"""Where reward heads are kept, by the layouts that exist."""

LANGUAGE_HEADS = ("lm_head.", "embed_out.", "output.", "cls.", "decoder.")
"""How the parts of a language model's head begin, which a reward model has no use for."""

ENCODER_DECODERS = ("T5", "UMT5", "MT5", "Bart", "MBart", "Pegasus", "LED", "BigBirdPegasus")

OWN_CLASSES = ("regression_layer.", "gating.", "reward_transform_matrix")
"""Tensors of models with several objectives behind code of their own, as ArmoRM has them."""

CARD = "plaudit.json"
"""What a folder says that transformers has no room for: where it came from, where scores are read, `"head": "new"`."""

BASE_DTYPE = "base_dtype"
"""Where plaudit.json says in which precision an adapter's base was when it was trained, whatever its files have."""


Tensors = Mapping[str, tuple[Path, tuple[int, ...]]]
"""The tensors of one folder: name -> (file, shape)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A head's key, and how many outputs it has."""

    name: str
    num_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a model folder holds: configuration, tensors, the head's key (None is no head), its normalisation."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Tensors
    head: str | None
    mean: float | None = None
    std: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The class that the folder says it is."""
        return str((self.config.get("architectures") or ["no architecture named"])[0])

    @property
    def dtype(self) -> str:
        """The precision that the configuration names."""
        found = str(self.config.get("dtype") or self.config.get("torch_dtype") or "float32")
        return found if found in ("float32", "bfloat16", "float16") else "float32"

    @property
    def head_rows(self) -> int | None:
        """Outputs of the head; a reward model has one."""
        return (*self.tensors[self.head][1], 0)[0] if self.head else None

    @property
    def is_untrained(self) -> bool:
        """Whether the head was new when the folder was saved, and nobody has trained it since."""
        return self.card.get("head") == "new"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a model folder's headers; ModelError if it is not a model folder that can be loaded safely."""
    config = _read_json(folder / "config.json", "a model folder holds a config.json")
    named = config.get("transformers_weights")
    if named is not None and not isinstance(named, str):
        raise ModelError(f"{folder}/config.json: expected a file name in 'transformers_weights', got {named!r}")
    tensors = read_tensors(folder, named=named)
    prefix = config.get("value_head_prefix")
    wanted = ([f"{prefix}.weight"] if isinstance(prefix, str) else []) + list(HEADS)
    head = next((name for name in wanted if name in tensors), None)
    mean, std = config.get("mean"), config.get("std")
    read = {file.name for file, _ in tensors.values()} | {named or ""}
    return Checkpoint(
        folder=folder, config=config, tensors=tensors, head=head, mean=mean, std=std, card=read_card(folder),
        ignored=tuple(sorted(file.name for file in folder.glob("*.safetensors") if file.name not in read)),
    )  # fmt: skip


def read_card(folder: Path) -> dict[str, Any]:
    """What plaudit wrote about the folder; empty if it was made by something else."""
    return _read_json(folder / CARD, "") if (folder / CARD).is_file() else {}


def read_adapter(folder: Path) -> tuple[dict[str, Any], Head | None]:
    """A LoRA folder's configuration, and the head it carries (None if it carries none)."""
    config = _read_json(folder / "adapter_config.json", "a LoRA folder holds an adapter_config.json")
    if not config.get("base_model_name_or_path"):
        raise ModelError(f"{folder}: adapter_config.json names no base model; put its path in base_model_name_or_path")
    names = read_tensors(folder)
    kept = tuple(f".{head}" for head in HEADS)
    heads = (Head(name=name, num_rows=(*shape, 0)[0]) for name, (_, shape) in names.items() if name.endswith(kept))
    return config, next(heads, None)


def read_tensors(folder: Path, *, named: str | None = None) -> Tensors:
    """Names and shapes of the tensors in the files that transformers and peft would load from this folder.

    `named` is what config.json's `transformers_weights` says, which transformers follows. Other safetensors files
    in the folder are not read: a stray file must not change which head is scored with.
    """
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in _weight_files(folder, named):
        for name, shape in _read_header(file).items():
            if name in found:
                raise ModelError(
                    f"{folder}: the tensor {name} is in two files, {found[name][0].name} and {file.name}; "
                    "expected it in one. Save the model again"
                )
            found[name] = (file, shape)
    return found


WEIGHTS, INDEX, ADAPTER_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"


def _weight_files(folder: Path, named: str | None) -> list[Path]:
    """The files that would be loaded, in the order in which transformers looks for them."""
    choices = (ADAPTER_WEIGHTS,) if (folder / "adapter_config.json").is_file() else (WEIGHTS, INDEX)
    if named is not None:
        choices = (_check_name(folder, named, (".safetensors", ".safetensors.index.json")),)
    name = next((name for name in choices if (folder / name).is_file()), None)
    if name is None:
        _refuse_without_weights(folder, choices)
    if not name.endswith(".json"):
        return [folder / name]
    places = _read_json(folder / name, "").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ModelError(f"{folder / name}: expected a 'weight_map' of file names, got {type(places).__name__}")
    # transformers loads whatever the index names, also a pickle.
    files = [folder / _check_name(folder, file, (".safetensors",)) for file in sorted(set(places.values()))]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{folder}: {name} names {file.name}, which is missing; copy or download it again")
    return files


def _check_name(folder: Path, name: str, ends: tuple[str, ...]) -> str:
    if not name.endswith(ends) or Path(name).name != name:
        raise ModelError(
            f"{folder}: expected weights in a *.safetensors file of this folder, got {name!r}; "
            "save the model again with safetensors"
        )
    return name


def _refuse_without_weights(folder: Path, expected: tuple[str, ...]) -> NoReturn:
    there = sorted(p.name for p in folder.iterdir() if p.suffix == ".safetensors")
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
    if there:
        which = f"{there[0]}, which is not what is loaded from it," if len(there) == 1 else f"{len(there)} other files"
        raise ModelError(
            f"{folder}: expected {' or '.join(expected)}, got {which}; save the model again, or rename the file"
        )
    got = f"only {pickles[0]}, a pickle, which can run code when it is opened" if pickles else "no weights"
    raise ModelError(f"{folder}: expected {' or '.join(expected)}, got {got}; save the model again with safetensors")


def _read_header(file: Path) -> dict[str, tuple[int, ...]]:
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= file.stat().st_size - 8:
            raise ModelError(
                f"{file}: {file.stat().st_size} bytes that are not a whole safetensors file; copy or download it again"
            )
        text = stream.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        needed = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, AttributeError, LookupError, TypeError):
        raise ModelError(f"{file}: its list of tensors cannot be read; copy or download it again") from None
    if file.stat().st_size < needed:
        raise ModelError(f"{file}: {file.stat().st_size} of {needed} bytes are there; copy or download it again")
    return shapes


def _read_json(file: Path, why: str) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"{file.parent}: no {file.name} there; {why}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not JSON ({error}); copy or download it again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file}: a JSON object was needed, {type(found).__name__} came")
    return found


def is_value_head(name: str) -> bool:
    """Whether a tensor is the value head of DeepSpeed-Chat (`v_head.weight`) or of TRL (`v_head.summary.weight`)."""
    return name.startswith("v_head.") or ".v_head." in name


def check_kind(checkpoint: Checkpoint) -> None:
    """ModelError for a kind of model that cannot become a reward model here."""
    architecture = checkpoint.architecture
    if checkpoint.config.get("is_encoder_decoder") or architecture.startswith(ENCODER_DECODERS):
        raise ModelError(
            f"{checkpoint.folder}: expected a decoder or an encoder, got an encoder-decoder ({architecture}); "
            "plaudit scores and trains none of these. Use another model"
        )


def check_head(checkpoint: Checkpoint) -> None:
    """ModelError unless the folder holds one head with one output."""
    check_kind(checkpoint)
    where, architecture = checkpoint.folder, checkpoint.architecture
    if checkpoint.head is None:
        if found := next((name for name in checkpoint.tensors if is_value_head(name)), None):
            raise ModelError(
                f"{where}: expected a model with score.weight, got one with a value head ({found}) in the layout of "
                "DeepSpeed-Chat or of TRL's AutoModelForCausalLMWithValueHead, which transformers does not load as a "
                "reward model; rename its tensors to those of a *ForSequenceClassification model"
            )
        if found := next((name for name in checkpoint.tensors if name.startswith(OWN_CLASSES)), None):
            raise ModelError(
                f"{where}: expected a *ForSequenceClassification model with one head, got {architecture} "
                f"({found}), a class of the model's own with several objectives; plaudit reads one scalar head"
            )
        if architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
            raise ModelError(
                f"{where}: a language model came ({architecture}), a reward model was needed; "
                f"train one on it with: plaudit train {where} DATA --out RUN"
            )
        raise ModelError(
            f"{where}: its reward head is missing ({architecture} came without {HEADS[0]}); "
            "save the model with its head, or train a new one"
        )
    if checkpoint.head_rows != 1:
        raise ModelError(
            f"{where}: a head with {checkpoint.head_rows} labels came ({checkpoint.head}), one with 1 was needed; "
            "this is a classifier, not a reward model"
        )
    others = (*HEADS, "lm_head.weight", "embed_out.weight")
    extra = [name for name in others if name in checkpoint.tensors and name != checkpoint.head]
    if extra:
        raise ModelError(
            f"{where}: two heads came ({checkpoint.head} and {extra[0]}), one was needed; "
            "remove the one that is not the reward"
        )
