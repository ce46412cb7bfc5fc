"""What transformers 4 reads in other places of a model folder than transformers 5 writes.

transformers 5 keeps the rotary parameters in `rope_parameters`; 4 reads `rope_theta` and `rope_scaling` at the top
level, and falls back to a default of its own when they are missing: the scores are then others, without a warning.
5 also writes the tokenizer class `TokenizersBackend` and a list of `extra_special_tokens`, which 4 cannot load.
Both places are written, with the same content, so that either version computes the same scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROPE = "rope_parameters"

FULL, SLIDING = "full_attention", "sliding_attention"

LOCAL_BASES = {
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
    "gemma3n_text": ("rope_theta", "rope_local_base_freq"),
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    "modernbert-decoder": ("global_rope_theta", "local_rope_theta"),
    # Its sliding layers have the same base, and no scaling.
    "olmo3": ("rope_theta", "rope_theta"),
}
"""Families with parameters by layer type: what transformers 4 calls the base of full and of sliding attention."""

BASES = {"gpt_neox": ("rotary_emb_base", "rotary_pct"), "gpt_neox_japanese": ("rotary_emb_base", "rotary_pct")}
"""Families with names of their own for the base and for the share of a head that is rotated."""

RENAMED = {"qwen3_moe": {"num_experts": "num_local_experts"}}
"""Families with a field that transformers 4 knows by another name: its name there, and the one in transformers 5."""

TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Tokenizer classes that transformers 4 lacks: what it calls the same thing."""


def write_for_transformers_4(folder: Path) -> None:
    """Add to a folder that transformers 5 wrote what transformers 4 would miss in it."""
    for file, complete in (("config.json", complete_config), ("tokenizer_config.json", complete_tokenizer_config)):
        if (folder / file).is_file():
            before = json.loads((folder / file).read_text(encoding="utf-8"))
            after = complete(before)
            if after != before:
                text = json.dumps(after, indent=2, sort_keys=True, ensure_ascii=False)
                (folder / file).write_text(text + "\n", encoding="utf-8")


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the rotary parameters in both places, also in the parts that it is composed of."""
    parts = {key: complete_config(value) for key, value in config.items() if isinstance(value, dict) and key != ROPE}
    renamed = {old: config[new] for old, new in RENAMED.get(_type(config), {}).items() if new in config}
    every = {"global_attn_every_n_layers": n} if (n := _count_to_full_attention(config)) else {}
    return {**config, **parts, **renamed, **every, **(_legacy_rope(config) or {})}


def complete_tokenizer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer's configuration in words that both versions know."""
    known = dict(config)
    if (name := known.get("tokenizer_class")) in TOKENIZER_CLASSES:
        known["tokenizer_class"] = TOKENIZER_CLASSES[name]
    # In transformers 4 this key holds names for tokens (a dict); 5 reads the older key as well.
    if isinstance(known.get("extra_special_tokens"), list):
        known["additional_special_tokens"] = known.pop("extra_special_tokens")
    return known


def find_faults(folder: Path) -> Iterator[str]:
    """What transformers 4 would read otherwise than 5 in this folder."""
    for file, complete in (("config.json", complete_config), ("tokenizer_config.json", complete_tokenizer_config)):
        if not (folder / file).is_file():
            continue
        config = json.loads((folder / file).read_text(encoding="utf-8"))
        if file == "config.json":
            yield from _unsayable(config)
        if missing := _differences(config, complete(config)):
            yield (
                f"{file} lacks what transformers 4 reads ({', '.join(missing)}); "
                "export the folder with plaudit export to add it"
            )


def _differences(config: Mapping[str, Any], complete: Mapping[str, Any]) -> list[str]:
    """Keys, of any depth, that only the complete configuration has, or has with another value."""
    found: list[str] = []
    for key, value in complete.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            found += _differences(config[key], value)
        elif key not in config or config[key] != value:
            found.append(key)
    return found


def _unsayable(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, dict) and key != ROPE:
            yield from _unsayable(value)
    if config.get(ROPE) and _legacy_rope(config) is None:
        yield f"transformers 4 has no place for the rope_parameters of this {_type(config)}"
    if _count_to_full_attention(config) == 0:
        yield f"transformers 4 has no place for the layer_types of this {_type(config)}"


def _type(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type", "model"))


def _count_to_full_attention(config: Mapping[str, Any]) -> int | None:
    """Every how many layers ModernBERT has full attention, which is all that transformers 4 reads of `layer_types`.

    0 if no number says it; None for other families.
    """
    layers = config.get("layer_types")
    if not _type(config).startswith("modernbert") or not layers:
        return None
    for every in range(1, len(layers) + 1):
        if layers == [FULL if n % every == 0 else SLIDING for n in range(len(layers))]:
            return every
    return 0


def _legacy_rope(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The top-level keys that say the same as `rope_parameters`: empty without any, None if no keys can say it."""
    found, model_type = config.get(ROPE), _type(config)
    if not isinstance(found, dict) or not found:
        return {}
    if model_type in LOCAL_BASES and FULL in found:
        return _by_layer_type(found, *LOCAL_BASES[model_type])
    if any(isinstance(value, dict) for value in found.values()) or found.get("rope_type") == "proportional":
        return None
    base, share = BASES.get(model_type, ("rope_theta", "partial_rotary_factor"))
    legacy: dict[str, Any] = {}
    if "rope_theta" in found:
        legacy[base] = found["rope_theta"]
    if "partial_rotary_factor" in found:
        legacy[share] = found["partial_rotary_factor"]
    scaling = _scaling(found)
    if scaling and found.get("rope_type") == "longrope":
        return _add_longrope(legacy, scaling, config)
    if scaling:
        # transformers 5 prefers `rope_scaling` where it is there, so it has to be as complete as `rope_parameters`.
        legacy["rope_scaling"] = scaling
    return legacy


def _add_longrope(
    legacy: dict[str, Any], scaling: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """transformers 4 reads the original length at the top level, and computes the factor from it whatever is said."""
    original, longest = scaling.get("original_max_position_embeddings"), config.get("max_position_embeddings")
    if not original or not longest:
        return None
    legacy["original_max_position_embeddings"] = original
    factor, implied = scaling.get("factor") or longest / original, longest / original
    if _type(config).startswith("phi3"):
        # It accepts these three fields and no other.
        if scaling.get("attention_factor") is not None or factor != implied:
            return None
        return {**legacy, "rope_scaling": {"type": "longrope", **{key: scaling[key] for key in LONGROPE}}}
    whole = dict(scaling)
    if whole.get("attention_factor") is None and factor != implied:
        # The value that transformers 5 computes from the stated factor.
        whole["attention_factor"] = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return {**legacy, "rope_scaling": whole}


LONGROPE = ("short_factor", "long_factor")


def _by_layer_type(found: Mapping[str, Any], full_base: str, sliding_base: str) -> dict[str, Any] | None:
    full, sliding = found[FULL] or {}, found.get(SLIDING) or {}
    legacy = {sliding_base: sliding.get("rope_theta"), full_base: full.get("rope_theta")}
    if full_base == sliding_base and full.get("rope_theta") != sliding.get("rope_theta", full.get("rope_theta")):
        return None
    scaling, of_sliding = _scaling(full), _scaling(sliding)
    # ModernBERT scales all layers alike, the others their full attention alone.
    if of_sliding != (scaling if full_base == "global_rope_theta" else None):
        return None
    if "partial_rotary_factor" in {**full, **sliding}:
        return None
    if scaling:
        legacy["rope_scaling"] = scaling
    return {key: value for key, value in legacy.items() if value is not None}


def _scaling(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `rope_scaling` has to hold: everything but what has a place of its own; None for plain rotation."""
    rest = {key: value for key, value in found.items() if key not in ("rope_theta", "partial_rotary_factor")}
    return None if rest.keys() <= {"rope_type", "type"} and rest.get("rope_type", "default") == "default" else rest
