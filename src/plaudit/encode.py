"""Text to token ids, many texts at once; what the texts of a group share is encoded once.

Between `templates` and `render`. Special tokens split a text before anything else happens to it, so the ids of a text
are the ids up to such a token followed by the ids from it on:

    <|im_start|>user ... <|im_end|>\\n | <|im_start|>assistant\\n first answer <|im_end|>
                   once, for all K     | <|im_start|>assistant\\n other answer <|im_end|>

Invariant: the ids equal those of the whole text, encoded alone. Where that cannot be shown from the tokenizer's own
description, whole texts are encoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int32]

# Below this many shared characters, two calls cost more than they save.
_MIN_SHARED = 128


class Encoder:
    """A tokenizer, and the special tokens before which a text may be cut. `example` is any text that holds them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, example: str = "") -> None:
        self.tokenizer = tokenizer
        self.cuts = tuple(cut for cut in find_cuts(tokenizer) if cut in example)

    def encode_texts(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[Ids]:
        """Each text as ids, as the tokenizer gives them."""
        if not texts:
            return []
        rows: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return [np.array(row, dtype=np.int32) for row in rows]

    def encode_groups(self, groups: Sequence[Sequence[str]]) -> list[list[Ids]]:
        """The texts of each group as ids, no special tokens added; what a group's texts share is encoded once."""
        cuts = [self.find_cut(texts) for texts in groups]
        parts: list[str] = []
        for texts, cut in zip(groups, cuts, strict=True):
            parts += [texts[0][:cut]] if cut else []
            parts += [text[cut:] for text in texts]
        return list(_join(self.encode_texts(parts), [len(texts) for texts in groups], cuts))

    def find_cut(self, texts: Sequence[str]) -> int:
        """Where the last special token begins that all texts share with everything before it; 0 if nowhere useful."""
        if len(texts) < 2 or not self.cuts:
            return 0
        shared = _count_shared(texts)
        at = max(texts[0].rfind(cut, 0, shared) for cut in self.cuts)
        return at if at >= _MIN_SHARED else 0


def _count_shared(texts: Sequence[str]) -> int:
    """Characters that all texts begin with. The first and the last in order differ as early as any two."""
    first, last = min(texts), max(texts)
    known, limit = 0, min(len(first), len(last))
    # By halves, as comparing two slices is far faster than looking at characters one by one.
    while known < limit:
        middle = (known + limit + 1) // 2
        if first[known:middle] == last[known:middle]:
            known = middle
        else:
            limit = middle - 1
    return known


def _join(ids: list[Ids], sizes: list[int], cuts: list[int]) -> Iterator[list[Ids]]:
    rest = iter(ids)
    for size, cut in zip(sizes, cuts, strict=True):
        head = next(rest) if cut else None
        yield [row if head is None else np.concatenate([head, row]) for row in (next(rest) for _ in range(size))]


def find_cuts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens before which any text may be cut without changing its ids.

    A fast tokenizer first looks, from left to right, for added tokens that are matched in the raw text; it normalizes,
    splits and encodes each stretch between them by itself. So ids can be joined before a token T if, wherever T stands,
    a match begins: T is matched raw and by its letters alone (no word boundaries, no space eaten to its left), and no
    added token can begin before T and reach into it. A word boundary that another token asks for would be seen
    differently at a cut, so one such token rules all cuts out.
    """
    if not tokenizer.is_fast or getattr(tokenizer, "split_special_tokens", False):
        return ()
    # A class that prepares the text in its own way first (infilling, layouts) has promised nothing about parts of it.
    for name in ("__call__", "_encode_plus"):
        module: str = getattr(getattr(type(tokenizer), name, None), "__module__", "")
        if module not in ("transformers.tokenization_utils_base", "transformers.tokenization_utils_tokenizers"):
            return ()
    added = list(tokenizer.added_tokens_decoder.values())
    if any(token.single_word for token in added):
        return ()
    texts = [token.content for token in added]
    return tuple(
        token.content
        for token in added
        if token.special
        and not (token.normalized or token.lstrip or token.content[:1].isspace())
        and not any(_reaches_into(other, token.content) for other in texts)
    )


def _reaches_into(other: str, token: str) -> bool:
    """Whether `other` can begin before `token` and end inside or after it."""
    return any(token.startswith(other[k:]) or other[k:].startswith(token) for k in range(1, len(other)))
