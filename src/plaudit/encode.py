"""Text to token ids, many texts at once; what the texts of a group share is encoded once.

Between `templates` and `render`. Special tokens split a text before anything else happens to it, so the ids of a text
are the ids up to such a token followed by the ids from it on:

    <|im_start|>user ... <|im_end|>\\n | <|im_start|>assistant\\n first answer <|im_end|>
                   once, for all K     | <|im_start|>assistant\\n other answer <|im_end|>

Invariant: the ids equal those of the whole text, encoded alone. Where that cannot be shown from the tokenizer's own
description, whole texts are encoded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int32]

# Below this many shared characters, two calls cost more than they save.
_MIN_SHARED = 128


class Encoder:
    """A tokenizer, and the special tokens before which a text may be cut. `example` is any text that holds them.

    Any number of threads may use one, and may use the tokenizer itself beside it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, example: str = "") -> None:
        self.tokenizer = tokenizer
        self.cuts = find_cuts(tokenizer, example)
        self._own = copy_backend(tokenizer) if is_plain_backend(tokenizer) else None

    def encode_texts(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[Ids]:
        """Each text as ids, as the tokenizer gives them."""
        if not texts:
            return []
        if self._own is not None:
            encoded = self._own.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
            return [np.array(one.ids, dtype=np.int32) for one in encoded]
        with _lock_of(self.tokenizer):
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


def find_cuts(tokenizer: PreTrainedTokenizerBase, example: str | None = None) -> tuple[str, ...]:
    """The special tokens before which any text may be cut without changing its ids; of an example, those that it holds.

    A fast tokenizer first looks, from left to right, for added tokens that are matched in the raw text; it normalizes,
    splits and encodes each stretch between them by itself. So ids can be joined before a token T if, wherever T stands,
    a match begins: T is matched raw and by its letters alone (no word boundaries, no space eaten to its left), and no
    added token can begin before T and reach into it. A word boundary that another token asks for would be seen
    differently at a cut, so one such token rules all cuts out.
    """
    if not is_plain_backend(tokenizer):
        return ()
    added = list(tokenizer.added_tokens_decoder.values())
    if any(token.single_word for token in added):
        return ()
    texts = [token.content for token in added]
    return tuple(
        token.content
        for token in added
        if token.special
        and (example is None or token.content in example)
        and not (token.normalized or token.lstrip or token.content[:1].isspace())
        and not any(_reaches_into(other, token.content) for other in texts)
    )


def _reaches_into(other: str, token: str) -> bool:
    """Whether `other` can begin before `token` and end inside or after it."""
    return any(token.startswith(other[k:]) or other[k:].startswith(token) for k in range(1, len(other)))


def is_plain_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the ids of a text are what the Rust tokenizer inside gives for it, and nothing is done before or after.

    A class that prepares the text in its own way first (infilling, layouts) has promised nothing of the kind.
    """
    if not tokenizer.is_fast or getattr(tokenizer, "split_special_tokens", False):
        return False
    modules = (getattr(getattr(type(tokenizer), name, None), "__module__", "") for name in ("__call__", "_encode_plus"))
    own = ("transformers.tokenization_utils_base", "transformers.tokenization_utils_tokenizers")
    return all(module in own for module in modules)


def copy_backend(tokenizer: Any) -> Tokenizer:
    """The Rust tokenizer inside, as an object of our own that never pads and never truncates.

    Every call of a transformers tokenizer first sets padding and truncation on the one object that all threads share:
    a call on another thread then fails ("Already borrowed"), or comes back cut or padded. Vocabulary and merges, which
    are large, are shared with the original.
    """
    from tokenizers import Tokenizer

    original: Tokenizer = tokenizer.backend_tokenizer
    copy = Tokenizer(original.model)
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        if (part := getattr(original, name)) is not None:
            setattr(copy, name, part)
    added = [token for _, token in sorted(original.get_added_tokens_decoder().items())]
    # A token that the vocabulary holds keeps its id, and the others are numbered as they come. Every call builds the
    # table of all added tokens again, so the calls are few: there are tokenizers with thousands of them.
    known = [token for token in added if copy.token_to_id(token.content) is not None]
    new = [token for token in added if copy.token_to_id(token.content) is None]
    runs = [[token for token in known if token.special is kind] for kind in (True, False)]
    runs += [list(run) for _, run in groupby(new, key=lambda token: token.special)]
    for run in filter(None, runs):
        (copy.add_special_tokens if run[0].special else copy.add_tokens)(run)
    if _describe_added(copy) != _describe_added(original):
        # Ids of added tokens depend on the order in which they were added, and this one cannot be made again.
        copy = Tokenizer.from_str(original.to_str())
        copy.no_truncation()
        copy.no_padding()
    return copy


def _describe_added(tokenizer: Tokenizer) -> dict[int, tuple[Any, ...]]:
    flags = ("content", "special", "normalized", "single_word", "lstrip", "rstrip")
    found = tokenizer.get_added_tokens_decoder().items()
    return {number: tuple(getattr(token, flag) for flag in flags) for number, token in found}


_LOCKS: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def _lock_of(tokenizer: PreTrainedTokenizerBase) -> threading.Lock:
    """One lock a tokenizer, for those that cannot be copied."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(tokenizer, threading.Lock())
