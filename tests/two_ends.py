"""A tiny model whose chat template ends an answer with `</s>` and a line break, as ChatML does with `<|im_end|>`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import SPECIAL, VOCABULARY, save_model

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} </s>\n{% endfor %}"
NEWLINE = VOCABULARY - 1
"""The last word of the vocabulary is the line break."""


def make_tokenizer(template: str | None = TEMPLATE, **named: str | None) -> Any:
    """The tokenizer of whole words from `tiny`, in which the last word is the line break."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), NEWLINE)), "\n"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(list(SPECIAL))
    inner.add_tokens(["\n"])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | named
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **{k: v for k, v in names.items() if v is not None})
    tokenizer.chat_template = template
    return tokenizer


def save_two_ended(folder: Path, *, kind: str = "classifier", template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A folder with the model and this tokenizer."""
    save_model(folder, kind=kind, **changes)
    make_tokenizer(template).save_pretrained(folder)
    return folder
