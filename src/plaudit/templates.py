"""A conversation as text: by the tokenizer's chat template, which is tried before it is trusted, or plainly.

Above `render`, which turns Groups into token ids; here only texts, templates and special tokens are looked at. A
template is tried on two conversations that differ in the answer alone: what both renderings end with is what it writes
after an answer. Invariant: a `ChatTemplate` that exists renders the answer it is given, and renders it alike every day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plaudit.errors import TemplateError
from plaudit.group import Content, Message, content_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Llama's own templates fall back to this day where the clock cannot be read, so freezing to it agrees with them.
FROZEN_DATE = datetime(2024, 7, 26)

_CALL = re.compile(r"""\bstrftime_now\s*\(\s*(?:format\s*=\s*)?(['"])((?:(?!\1)[^\\])*)\1\s*\)""")
_NAME = re.compile(r"\bstrftime_now\b(?!\s+is\s+(?:not\s+)?defined)")
# Stands before a template in the function's place. `+%}` keeps a line break that opens the template, which jinja would
# trim after a block.
_SHADOW = f"{{% macro strftime_now(format) %}}{FROZEN_DATE:%d %b %Y}{{% endmacro +%}}"
# The answers of the trial end in different characters, so that the end which both renderings share is the template's.
_ANSWERS = ("the first answer", "another reply?")
_SPARE = re.compile(r"pad|endoftext|reserved|unused|extra|filler", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTemplate:
    """A chat template that was tried: its text, whether a date in it was frozen, the trial's rendering, and its tail.

    The tail is what the template writes after an answer.
    """

    text: str
    is_frozen: bool
    example: str
    tail: str

    @property
    def is_closing(self) -> bool:
        """Whether the template itself ends an answer, with a special token or in words; blank space ends nothing."""
        return bool(self.tail.strip())


class ScorePosition(StrEnum):
    """Where in a rendered text the score is read.

    `LAST` is the last token, as plaudit trains it. `CLOSING` is the last token before the white space that a template
    writes after it. `EOS` is what OpenRLHF does: trailing line breaks are removed, EOS is appended after a space if
    the text does not end with it, no special tokens are added, and its last token is read. `BEFORE_PAD` is what
    transformers does: the last token that is not the pad token, which is another one where EOS is the pad token.
    """

    LAST = "last"
    CLOSING = "closing"
    EOS = "eos"
    BEFORE_PAD = "before_pad"


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A score position, and for `BEFORE_PAD` the id of the pad token."""

    name: ScorePosition = ScorePosition.LAST
    pad_id: int | None = None

    def end_text(self, text: str, eos: str | None) -> str:
        """A text as it has to end before it is tokenized."""
        if self.name is not ScorePosition.EOS or eos is None:
            return text
        text = text.rstrip("\n")
        return text if text.endswith(eos) else f"{text} {eos}"

    def drops(self, token_id: int | None) -> bool:
        """Whether this token at the end of a text is left unread."""
        return self.name is ScorePosition.BEFORE_PAD and token_id is not None and token_id == self.pad_id


LAST_TOKEN = Position()


def freeze_dates(template: str) -> tuple[str, bool]:
    """The template with every reading of the clock replaced by one fixed date, and whether there was any.

    Scores of a model whose template prints today's date drift from day to day, in every tool that renders it.
    """
    if not _NAME.search(template) or template.startswith(_SHADOW):
        return template, False
    frozen = _CALL.sub(lambda m: m[1] + FROZEN_DATE.strftime(m[2]) + m[1], template)
    if _NAME.search(frozen):
        # A format that is not a literal, or the function under another name.
        frozen = _SHADOW + frozen
    return frozen, True


def close_template(template: str) -> str:
    """The template with EOS after what it renders, unless that ends with it or a generation prompt was asked for.

    A template that ends an answer with nothing gets its EOS from us; in a saved folder, from itself.
    """
    # The signs at the tags keep a line break at the template's start, and blanks at its end, from being trimmed.
    return (
        "{% set rendered +%}" + template + "{%+ endset %}{{ rendered }}"
        "{% if eos_token and not add_generation_prompt and not rendered.endswith(eos_token) %}"
        "{{ eos_token }}{% endif %}"
    )


def move_end(template: str, position: Position, tokenizer: PreTrainedTokenizerBase) -> str:
    """The template, changed so that what it renders ends with the token at which the score is read.

    A consumer that reads the last token of a saved model's template then gets the score, whatever the position was.
    """
    if position.name is ScorePosition.CLOSING:
        end = "{{ rendered.rstrip() }}"
    elif position.name is ScorePosition.EOS and tokenizer.eos_token is not None:
        end = (
            "{%- set rendered = rendered.rstrip('\\n') -%}"
            "{{ rendered if rendered.endswith(eos_token) else rendered + ' ' + eos_token }}"
        )
    elif position.name is ScorePosition.BEFORE_PAD:
        # As a string literal of the template: the saved tokenizer pads with another token.
        pad = json.dumps(tokenizer.convert_ids_to_tokens(position.pad_id), ensure_ascii=False)
        end = "{{ rendered[:-(" + pad + " | length)] if rendered.endswith(" + pad + ") else rendered }}"
    else:
        return template
    return (
        "{% set rendered +%}" + template + "{%+ endset %}"
        "{%- if add_generation_prompt -%}{{ rendered }}{%- else -%}" + end + "{%- endif -%}"
    )


def read_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """The tokenizer's chat template, tried and frozen; None if it has none. TemplateError if it cannot be used."""
    if not tokenizer.chat_template:
        return None
    try:
        text, is_frozen = freeze_dates(tokenizer.get_chat_template())
    except ValueError as error:
        raise TemplateError(
            f"the tokenizer holds several chat templates and none is its default ({error}); name one of them 'default'"
        ) from error
    first, second = _render_trial(tokenizer, text)
    if first == second:
        raise TemplateError(
            "the chat template renders two different answers alike, so it leaves the answer out; "
            "give the tokenizer a template that renders assistant turns, or use --plain"
        )
    ends = zip(reversed(first), reversed(second), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ends))
    tail = first[len(first) - same :]
    return ChatTemplate(text=text, is_frozen=is_frozen, example=first, tail=tail)


def _render_trial(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    user: Message = {"role": "user", "content": "a question"}
    trials = [[user, {"role": "assistant", "content": answer}] for answer in _ANSWERS]
    try:
        return render_texts(tokenizer, template, trials)
    except TemplateError as error:
        system: Message = {"role": "system", "content": "an instruction"}
        try:
            return render_texts(tokenizer, template, [[system, *trial] for trial in trials])
        except TemplateError:
            raise TemplateError(
                f"the chat template cannot render a question and its answer ({error}); "
                "give the tokenizer another template, or use --plain"
            ) from error


def render_texts(
    tokenizer: PreTrainedTokenizerBase, template: str, conversations: Sequence[Sequence[Message]]
) -> list[str]:
    """The conversations as text, without a generation prompt. TemplateError, in its words, if the template refuses."""
    if not conversations:
        return []
    import jinja2  # as late as transformers itself does: most commands never render

    try:
        texts: list[str] = tokenizer.apply_chat_template(
            [list(turns) for turns in conversations],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=False,
        )
    # What a template can raise: its own refusals and undefined names, or Python's complaints about a field it reads.
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise TemplateError(str(error) or type(error).__name__) from error
    return texts


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokenizer's special tokens by id, in the order of their ids."""
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return dict(sorted((added | named).items()))


def trailing_whitespace_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int] | NDArray[np.int32]) -> int:
    """How many tokens of white space follow the closing token of a rendered conversation; 0 if it ends with that token.

    ChatML ends an answer with `<|im_end|>` and a line break. Transformers, TRL and vLLM read the score at the line
    break; OpenRLHF and RL trainers, whose sequences end at EOS, read it at `<|im_end|>`: at
    `ids[len(ids) - 1 - trailing_whitespace_tokens(tokenizer, ids)]`. A closing token is a special or added token.
    White space after anything else belongs to the answer and is not counted.
    """
    closing = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    closing = (closing | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
    for count in range(len(ids)):
        last = int(ids[len(ids) - 1 - count])
        if last in closing:
            return count
        if tokenizer.decode([last]).strip():
            break
    return 0


def choose_pad_id(tokenizer: PreTrainedTokenizerBase, final_ids: set[int]) -> int:
    """A pad id that differs from every token that a rendered conversation can end with.

    Hugging Face reads the score at the last token that is not the pad: if a conversation can end with the pad, it reads
    the one before. In order of choice: the tokenizer's own pad, a special token made for padding or for nothing yet,
    the unknown token, any other special token, and at last the rarest ordinary token.
    """
    special, bos = special_tokens(tokenizer), tokenizer.bos_token_id
    choices: list[int | None] = [
        tokenizer.pad_token_id,
        *(i for i, text in special.items() if "pad" in text.lower()),
        *(i for i, text in special.items() if _SPARE.search(text) and i != bos),
        tokenizer.unk_token_id,
        *(i for i in special if i != bos),
        *special,
        # Byte-pair vocabularies are ordered by frequency, so the last entry is the rarest.
        *range(tokenizer.vocab_size - 1, -1, -1),
    ]
    for choice in choices:
        if choice is not None and choice not in final_ids:
            return choice
    raise TemplateError(
        f"every token of the vocabulary ({tokenizer.vocab_size}) can end a conversation, so none is left to pad with; "
        "add a pad token to the tokenizer"
    )


def join_plain(prompt: Content, answer: Content) -> str:
    """Prompt and answer as one string: text is joined as it stands, turns by line breaks, their roles left out."""
    if isinstance(prompt, str) and isinstance(answer, str):
        return prompt + answer
    turns = [*_turn_texts(prompt), *_turn_texts(answer)]
    return "\n".join(turns)


def _turn_texts(content: Content) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [content_text(message.get("content")) for message in content]


def is_empty(content: Content) -> bool:
    """Whether nothing was answered: no word in any turn, and nothing but roles and names beside the words."""
    if isinstance(content, str):
        return not content.strip()
    return not any(
        value and not (isinstance(value, str) and not value.strip())
        for message in content
        for key, value in message.items()
        if key not in ("role", "name")
    )
