"""A tiny language model that spells: a character is a token, so that any text has hidden states of its own.

The stand-in for the embedded model where a test tells its story in seconds: random weights, so it knows nothing.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from tiny import EOS, PAD, SPECIAL, make_config, widen

LETTERS = "\n" + "".join(sorted(set(string.printable) - set(string.whitespace) | {" "}))
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"


def make_tokenizer(template: str | None = TEMPLATE) -> Any:
    """A tokenizer of characters, with the special tokens in front; other characters are unknown ones."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*SPECIAL, *LETTERS])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = template
    return tokenizer


def save_speller(folder: Path, *, kind: str = "causal", template: str | None = TEMPLATE, context: int = 1024) -> Path:
    """A folder with a tiny Llama that spells; `kind` is a causal language model or a classifier (a reward model)."""
    import transformers

    assert (SPECIAL[PAD], SPECIAL[EOS]) == ("<pad>", "</s>")
    sizes = {"vocab_size": len(SPECIAL) + len(LETTERS), "max_position_embeddings": context}
    config = make_config("llama", **sizes)
    classes = {"causal": transformers.LlamaForCausalLM, "classifier": transformers.LlamaForSequenceClassification}
    model = classes[kind](config)
    widen(model)
    model.save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder
