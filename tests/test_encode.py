"""The twin of encoding in parts is encoding whole: for every kind of tokenizer, on text full of special tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from plaudit import encode
from plaudit.encode import Encoder, find_cuts

WORDS = "what is the best answer to a question about prompts and trees? it depends, because people differ."
START, END = "<|im_start|>", "<|im_end|>"


def plain_cores() -> dict[str, Tokenizer]:
    """One untrained tokenizer of each kind; what they do around a piece's edges differs."""
    byte, prefixed, legacy, lower = (Tokenizer(models.BPE()) for _ in range(4))
    byte.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    legacy.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    lower.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC(), normalizers.Lowercase()])
    lower.pre_tokenizer = pre_tokenizers.Whitespace()
    cores = {"byte": byte, "prefixed": prefixed, "legacy": legacy, "lower": lower}
    for scheme in ("always", "first", "never"):
        cores[f"metaspace-{scheme}"] = Tokenizer(models.BPE())
        cores[f"metaspace-{scheme}"].pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return cores


KINDS = tuple(plain_cores())
START_PLAIN, END_PLAIN = (AddedToken(token, special=True, normalized=False) for token in (START, END))
NEIGHBOURS = {
    "alone": [],
    "longer": [AddedToken(START + "user", special=True, normalized=False)],
    "reaching in": [AddedToken("?<|im", special=True, normalized=False)],
    "spaces after": [AddedToken("<a>", special=True, normalized=False, rstrip=True)],
    "spaces before": [AddedToken("<a>", special=True, normalized=False, lstrip=True)],
    "normalized": [AddedToken("best", special=False, normalized=True)],
    "special, normalized": [AddedToken("<a>", special=True, normalized=True)],
    "whole words": [AddedToken("<a>", special=True, normalized=False, single_word=True)],
}


@functools.cache
def make_tokenizer(kind: str, neighbours: str = "alone") -> PreTrainedTokenizerFast:
    core = plain_cores()[kind]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>"], show_progress=False)
    core.train_from_iterator([WORDS] * 4, trainer)
    core.add_tokens([START_PLAIN, END_PLAIN, *NEIGHBOURS[neighbours]])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


pieces = st.lists(
    st.sampled_from([*WORDS.split(), " ", "  ", "\n", "?", "<", "<|im", START, END, START, "user", "<a>", "best", "x"]),
    max_size=25,
).map("".join)


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("kind", KINDS)
@given(head=pieces, tails=st.lists(pieces, min_size=1, max_size=4))
@settings(max_examples=25)
def test_parts_have_the_ids_of_the_whole(kind: str, neighbours: str, head: str, tails: Sequence[str]) -> None:
    tokenizer = make_tokenizer(kind, neighbours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "_MIN_SHARED", 1)
        encoder = Encoder(tokenizer, example=START + END + "<a>?<|im")
        texts = [head + tail for tail in tails]
        rows = encoder.encode_groups([texts, [head], texts[:2]])
    whole = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    assert [row.tolist() for row in rows[0]] == whole
    assert [row.tolist() for row in rows[2]] == whole[:2]
    assert rows[1][0].tolist() == tokenizer(head, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_prompt_is_encoded_once(kind: str) -> None:
    prompt = f"{START}user\n{WORDS} {WORDS}{END}\n"
    texts = [f"{prompt}{START}assistant\n{answer}{END}\n" for answer in ("yes", "no", "yes, because")]
    encoder = Encoder(make_tokenizer(kind), example=texts[0])
    assert encoder.cuts == (START, END) and encoder.find_cut(texts) == len(prompt)
    assert encoder.find_cut(texts[:1]) == 0


@pytest.mark.parametrize(
    ("neighbours", "cuts"),
    [
        ("alone", (START, END)),
        ("longer", (START, END, START + "user")),
        # "?<|im" can swallow the first letters of both.
        ("reaching in", ("?<|im",)),
        ("spaces after", (START, END, "<a>")),
        ("spaces before", (START, END)),
        ("normalized", (START, END)),
        ("special, normalized", (START, END)),
        ("whole words", ()),
    ],
)
def test_only_tokens_that_always_match_where_they_stand_are_cut_at(neighbours: str, cuts: tuple[str, ...]) -> None:
    assert find_cuts(make_tokenizer("byte", neighbours)) == ("<unk>", *cuts)[not cuts :]


def test_a_class_with_its_own_encoding_is_never_cut() -> None:
    class Infilling(PreTrainedTokenizerFast):
        def _encode_plus(self, text: object, *args: object, **kwargs: object) -> object:
            return super()._encode_plus(text, *args, **kwargs)

    core = make_tokenizer("byte").backend_tokenizer
    assert find_cuts(Infilling(tokenizer_object=core)) == ()


def test_tokens_that_are_split_are_never_cut_at() -> None:
    core = make_tokenizer("byte").backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(core.to_str()), split_special_tokens=True)
    assert find_cuts(tokenizer) == ()
