"""Tiny models of many families and of all rotary types, written as plaudit writes them, for transformers 4 to read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel

from plaudit.transformers4 import write_for_transformers_4

SIZES = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2}
BASE = {"rope_theta": 5e5}
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 64},
    "yarn-attention": {
        "factor": 4.0, "beta_fast": 20.0, "attention_factor": 0.7, "original_max_position_embeddings": 32,
    },
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "longrope": {
        "factor": 4.0, "short_factor": [1.0 + 0.1 * i for i in range(4)], "long_factor": [2.0 + i for i in range(4)],
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip


def rope(kind: str, **changes: Any) -> dict[str, Any]:
    return {"rope_type": kind.split("-")[0], **BASE, **ROPES[kind], **changes}


def by_layer(kind: str, base: float = 777.0) -> dict[str, Any]:
    return {"full_attention": rope(kind), "sliding_attention": {"rope_type": "default", "rope_theta": base}}


def configurations() -> dict[str, Any]:
    """By name: a tiny configuration whose rotary base is not the family's default."""
    partial = rope("default", partial_rotary_factor=0.5)
    experts = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    gemma = GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 24}
    found: dict[str, Any] = {
        f"llama-{kind}": ("LlamaConfig", GROUPED | {"rope_parameters": rope(kind)}) for kind in ROPES
    }
    found |= {
        f"gemma3-{kind}": ("Gemma3TextConfig", gemma | {"rope_parameters": by_layer(kind)})
        for kind in ("default", "linear", "yarn", "llama3")
    }
    for name in ("Mistral", "Mixtral", "Qwen2", "Qwen3", "Starcoder2", "Olmo2", "Granite", "SmolLM3", "Cohere2"):
        found[name.lower()] = (f"{name}Config", GROUPED | {"rope_parameters": rope("default")})
    for name in ("StableLm", "Phi", "Glm", "Nemotron"):
        head = {"head_dim": 8} if name == "Glm" else {}
        found[name.lower()] = (f"{name}Config", GROUPED | head | {"rope_parameters": partial})
    found |= {
        "qwen2-yarn": ("Qwen2Config", GROUPED | {"rope_parameters": rope("yarn")}),
        "qwen3-moe": ("Qwen3MoeConfig", GROUPED | experts | {"num_experts": 4, "rope_parameters": rope("yarn")}),
        "gpt-oss": (
            "GptOssConfig",
            GROUPED | {"head_dim": 8, "num_local_experts": 4, "sliding_window": 24, "rope_parameters": rope("yarn")},
        ),
        "gemma": ("GemmaConfig", GROUPED | {"head_dim": 8, "rope_parameters": rope("default")}),
        "gemma2": ("Gemma2Config", gemma | {"attn_logit_softcapping": 2.0, "rope_parameters": rope("default")}),
        "gpt-neox-linear": ("GPTNeoXConfig", SIZES | {"rope_parameters": rope("linear", partial_rotary_factor=0.5)}),
        "falcon": ("FalconConfig", SIZES | {"new_decoder_architecture": False, "rope_parameters": rope("default")}),
        "phi3-longrope": (
            "Phi3Config",
            GROUPED | {"original_max_position_embeddings": 64, "rope_parameters": rope("longrope", factor=2.0)},
        ),
        "olmo3-yarn": (
            "Olmo3Config", GROUPED | {"sliding_window": 24, "rope_parameters": by_layer("yarn", BASE["rope_theta"])}
        ),
        "modernbert": ("ModernBertConfig", SIZES | {"local_attention": 24, "rope_parameters": by_layer("default")}),
        "modernbert-2": (
            "ModernBertConfig",
            SIZES | {"local_attention": 24, "global_attn_every_n_layers": 2, "rope_parameters": by_layer("default")},
        ),
    }  # fmt: skip
    return {name: getattr(transformers, kind)(**values) for name, (kind, values) in found.items()}


def write_models(folder: Path) -> None:
    """A folder of random weights for each configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, config in configurations().items():
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(0.3 * torch.randn(weight.shape))
        model.save_pretrained(folder / name)
        write_for_transformers_4(folder / name)
