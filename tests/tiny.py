"""Tiny random reward models of every family, and groups of token lists to score with them.

Weights are drawn wide enough that the scores of two completions differ in their first digit, so that a wrong mask or a
wrong position cannot hide in rounding. Windows are smaller than the sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

VOCABULARY, CONTEXT, WINDOW = 100, 512, 24
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
PAD, EOS = 0, 3
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} </s>{% if not loop.last %} {% endif %}{% endfor %}"
)

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": EOS,
}
ALTERNATING = ["sliding_attention", "full_attention"] * 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """An architecture: its configuration class, what it takes beside `SIZES`, and the class of the folder."""

    config: str
    classifier: str | None
    changes: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "blocks"
    fused: bool = True


FAMILIES = {
    "llama": Family(config="LlamaConfig", classifier="LlamaForSequenceClassification"),
    "qwen2": Family(
        config="Qwen2Config",
        classifier="Qwen2ForSequenceClassification",
        changes={"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": Family(config="Qwen3Config", classifier="Qwen3ForSequenceClassification", changes={"head_dim": 16}),
    "mistral": Family(
        config="MistralConfig", classifier="MistralForSequenceClassification", changes={"sliding_window": WINDOW}
    ),
    "gemma2": Family(
        config="Gemma2Config",
        classifier="Gemma2ForSequenceClassification",
        changes={
            "num_hidden_layers": 4,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "attn_logit_softcapping": 2.0,
        },
    ),
    "gemma3": Family(
        config="Gemma3TextConfig",
        classifier="Gemma3TextForSequenceClassification",
        changes={
            "num_hidden_layers": 4,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
        },
    ),
    "phi3": Family(
        config="Phi3Config", classifier="Phi3ForSequenceClassification", changes={"sliding_window": 40}, fused=False
    ),
    "olmo2": Family(config="Olmo2Config", classifier="Olmo2ForSequenceClassification"),
    "gpt_neox": Family(
        config="GPTNeoXConfig",
        classifier="GPTNeoXForSequenceClassification",
        changes={"attention_dropout": 0.0, "hidden_dropout": 0.0, "classifier_dropout": 0.0},
        fused=False,
    ),
    "smollm3": Family(
        config="SmolLM3Config",
        classifier="SmolLM3ForSequenceClassification",
        changes={"num_hidden_layers": 4, "no_rope_layer_interval": 2},
    ),
    "granite": Family(
        config="GraniteConfig",
        classifier=None,
        changes={"attention_multiplier": 0.3, "residual_multiplier": 0.7, "embedding_multiplier": 3.0},
    ),
    "modernbert": Family(
        config="ModernBertConfig",
        classifier="ModernBertForSequenceClassification",
        changes={
            "num_hidden_layers": 4,
            "local_attention": WINDOW,
            "layer_types": ALTERNATING,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
        backend="plain",
        fused=False,
    ),
}


def make_tokenizer(template: str | None = TEMPLATE, pad: str | None = "<pad>") -> Any:
    """A tokenizer of whole words, `w7` to `w99`, with the special tokens in front."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token=pad
    )
    tokenizer.chat_template = template
    return tokenizer


def make_config(name: str, **changes: Any) -> Any:
    """A family's tiny configuration."""
    import transformers

    family = FAMILIES[name]
    return getattr(transformers, family.config)(**{**SIZES, "num_labels": 1, **family.changes, **changes})


def widen(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights: matrices that keep the size of what passes through, norms near one, biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 2 and "embed" not in name:
                weight.copy_(noise / weight.shape[1] ** 0.5)
            elif weight.ndim == 2:
                weight.copy_(noise)
            else:
                weight.add_(0.1 * noise)


def save_model(folder: Path, name: str = "llama", *, kind: str = "classifier", seed: int = 0, **changes: Any) -> Path:
    """A folder with a tiny model of the family and its tokenizer; `kind` is a classifier or a causal language model."""
    import transformers

    config = make_config(name, **changes)
    if kind == "classifier":
        model = getattr(transformers, str(FAMILIES[name].classifier))(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    widen(model, seed)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


Row = np.ndarray[Any, np.dtype[np.int32]]


def random_row(rng: np.random.Generator, length: int) -> Row:
    """Ordinary tokens, no pad among them."""
    return rng.integers(len(SPECIAL), VOCABULARY, length).astype(np.int32)


def ragged(k: int, seed: int = 0) -> list[Row]:
    """One prompt and k completions that share at three depths and end in different places."""
    rng = np.random.default_rng(seed)
    prompt = random_row(rng, 37)
    middles = [np.concatenate([prompt, random_row(rng, n)]) for n in (11, 23)]
    lower = [np.concatenate([middles[i % 2], random_row(rng, 9 + i)]) for i in range(3)]
    stems = [prompt, *middles, *lower]
    return [np.concatenate([stems[i % len(stems)], random_row(rng, int(rng.integers(1, 40)))]) for i in range(k)]


def long_trunk() -> list[Row]:
    """Longer than a block of queries, cut off at places that are no multiple of anything."""
    rng = np.random.default_rng(5)
    trunk = random_row(rng, 211)
    return [np.concatenate([trunk[:cut], random_row(rng, n)]) for cut, n in ((211, 30), (211, 7), (97, 60), (150, 1))]


def unshared() -> list[Row]:
    """An empty prompt: completions with nothing in common."""
    rng = np.random.default_rng(6)
    return [random_row(rng, n) for n in (1, 12, 33, 64)]


def identical() -> list[Row]:
    """The same completion twice, beside another, and a whole row that comes twice."""
    rng = np.random.default_rng(7)
    prompt = random_row(rng, 30)
    answer, other = (np.concatenate([prompt, random_row(rng, n)]) for n in (14, 20))
    return [answer, other, answer.copy(), other.copy(), answer.copy()]


def nested() -> list[Row]:
    """Each completion a prefix of the next one."""
    rng = np.random.default_rng(8)
    whole = random_row(rng, 75)
    return [whole[:n] for n in (40, 41, 60, 75)]


CASES: dict[str, Callable[[], list[list[Row]]]] = {
    "one": lambda: [ragged(1)],
    "pair": lambda: [ragged(2)],
    "five": lambda: [ragged(5)],
    "seventeen": lambda: [ragged(17)],
    "unshared": lambda: [unshared()],
    "identical": lambda: [identical()],
    "nested": lambda: [nested()],
    "long": lambda: [long_trunk()],
    "together": lambda: [ragged(5, 1), nested(), identical(), unshared(), ragged(5, 2), ragged(2, 3)],
}
