"""Messages to token ids: a Group in, one list of ids a completion out, and the checks that keep tokens honest.

The door between `formats` (Groups) and the waist (`tree`, `pack`), which sees token ids only. A conversation is the
tokenizer's chat template over prompt and completion, without a generation prompt, encoded once with no special tokens
added, and scored at its last token; plain text is prompt and completion as one string, EOS appended if it is missing.

Invariant: an untruncated rendering equals `tokenizer.apply_chat_template(conversation)` id for id (with dates frozen,
and EOS after it where the template ends an answer with nothing). Nothing is cut, left out or added without a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from plaudit.encode import Encoder, Ids
from plaudit.errors import ConfigError, DataError, TemplateError
from plaudit.group import Group, Message, content_text
from plaudit.templates import (
    FROZEN_DATE,
    LAST_TOKEN,
    Position,
    ScorePosition,
    choose_pad_id,
    is_empty,
    join_plain,
    read_template,
    render_texts,
    special_tokens,
    trailing_whitespace_tokens,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMPTY = "empty completion"
TOO_LONG = "too long"


class Overlength(StrEnum):
    """What happens to a completion whose tokens do not fit.

    `RIGHT` keeps the first tokens and what closes the conversation (turn end, EOS), so that the score is still read at
    a token that ends an answer. `LEFT` keeps the last tokens. `DROP` leaves the whole group out.
    """

    ERROR = "error"
    DROP = "drop"
    LEFT = "left"
    RIGHT = "right"
    UNSCORED = "unscored"


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderSettings:
    """How Groups become tokens. With `keep_system`, left truncation keeps the system message, or BOS where none is."""

    max_length: int | None = None
    overlength: Overlength = Overlength.ERROR
    plain: bool = False
    keep_system: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rendered:
    """One Group as token ids; `ids[i]` is None exactly where `unscored[i]` says why.

    `identical` lists the comparisons (better, worse) whose different texts became the same tokens by truncation: they
    say nothing and must not be trained on. `dropped` says why the whole group is left out: by policy, or because every
    comparison of it (ties aside) became identical; the ids of its completions that fit are there all the same.
    `trailing` counts the tokens of white space that the template writes after each closing token.
    """

    ids: tuple[Ids | None, ...]
    unscored: tuple[str | None, ...]
    dropped: str | None = None
    identical: tuple[tuple[int, int], ...] = ()
    trailing: tuple[int, ...] = ()


@dataclass(kw_only=True, slots=True)
class RenderCounts:
    """What a Renderer did, in numbers; `sentences()` says those that are not zero."""

    chat_groups: int = 0
    plain_groups: int = 0
    dates_frozen: int = 0
    eos_appended: int = 0
    truncated_left: int = 0
    truncated_right: int = 0
    dropped: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    identical_after_truncation: int = 0
    identical_as_rendered: int = 0

    def sentences(self) -> list[str]:
        """One sentence for every count that is not zero."""
        said = [
            (self.chat_groups, "group", "rendered with the chat template"),
            (self.plain_groups, "group", "rendered as plain text"),
            (self.dates_frozen, "conversation", f"rendered with the date frozen to {FROZEN_DATE:%d %B %Y}"),
            (self.eos_appended, "completion", "with EOS appended"),
            (self.truncated_left, "completion", "truncated on the left"),
            (self.truncated_right, "completion", "truncated on the right"),
            (self.dropped, "group", "dropped because a completion is too long"),
            *((count, "completion", f"unscored: {reason}") for reason, count in sorted(self.unscored.items())),
            (self.identical_after_truncation, "labelled pair", "left out: made identical by truncation"),
            (self.identical_as_rendered, "labelled pair", "different in text but not in tokens"),
        ]
        return [f"{count:,} {noun}{'s' if count > 1 else ''} {what}" for count, noun, what in said if count]


@dataclass(kw_only=True, slots=True)
class _Draft:
    """One Group on its way: its texts, and its ids as they are encoded, completed and cut."""

    group: Group
    name: str
    is_chat: bool
    texts: dict[int, str] = field(default_factory=dict)
    ids: dict[int, Ids] = field(default_factory=dict)
    unscored: dict[int, str] = field(default_factory=dict)
    dropped: str | None = None
    identical: tuple[tuple[int, int], ...] = ()


class Renderer:
    """A tokenizer, its template as it was found, and what has been rendered with them so far.

    `notes` says once what was decided when it was made; `counts` says what happened to the rows since. `chat_template`
    is the template that is used (dates frozen), which a saved tokenizer should carry; `pad_id` is safe to pad with.
    `trailing` counts the tokens of white space that it writes after an answer's closing token. Ids end with the token
    at which `position` says that the score is read. The tokenizer itself is never changed.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: RenderSettings | None = None,
        *,
        context_length: int | None = None,
        position: Position = LAST_TOKEN,
    ) -> None:
        self.tokenizer, self.position = tokenizer, position
        self.settings = settings or RenderSettings()
        self.limit = _check_limit(self.settings.max_length, context_length)
        self.notes: list[str] = []
        self.counts = RenderCounts()
        self._num_seen = 0
        template = None if self.settings.plain else read_template(tokenizer)
        self._template = template
        self.chat_template: str | None = template.text if template else None
        eos = tokenizer.eos_token_id
        # What is appended to a text that does not end with it.
        self._eos = np.array([] if eos is None or position.drops(eos) else [eos], dtype=np.int32)
        self._encoder = Encoder(tokenizer, example=template.example if template else "")
        self._closing = self._end = self._eos
        self.trailing = 0
        if template and template.is_closing:
            tail = position.end_text(template.tail, tokenizer.eos_token)
            whole = self._encoder.encode_texts([tail])[0]
            self.trailing = trailing_whitespace_tokens(tokenizer, whole)
            self._end = whole[-self.trailing - 1 :]
            self._closing = self._drop_unread(whole, least=0)
        self.closing_ids = {int(row[-1]) for row in (self._closing if self.chat_template else self._eos,) if len(row)}
        self.final_ids = self.closing_ids | {int(i) for i in self._eos}
        self.pad_id = choose_pad_id(tokenizer, self.final_ids)
        self._note_choices()

    def render(self, groups: Sequence[Group]) -> list[Rendered]:
        """Each Group as token ids, in order; all texts are encoded together. Raises DataError or TemplateError."""
        drafts = [self._open_draft(group) for group in groups]
        self._encode_chats([draft for draft in drafts if draft.is_chat])
        self._encode_plain([draft for draft in drafts if not draft.is_chat])
        for draft in drafts:
            self._complete(draft)
            before = {i: row.tobytes() for i, row in draft.ids.items()}
            self._fit(draft)
            self._find_identical(draft, before)
        return [self._close_draft(draft) for draft in drafts]

    def _open_draft(self, group: Group) -> _Draft:
        name = f"group {group.id!r}" if group.id is not None else f"group {self._num_seen} (counted from 0)"
        self._num_seen += 1
        # A transcript without a prompt has its turns in its own words: a template around it would be a turn too many.
        is_chat = self._template is not None and not (group.is_plain and group.prompt == "")
        if is_chat:
            self.counts.chat_groups += 1
        else:
            self.counts.plain_groups += 1
        draft = _Draft(group=group, name=name, is_chat=is_chat)
        for i, completion in enumerate(group.completions):
            if is_empty(completion.content):
                self._leave_unscored(draft, i, EMPTY, EMPTY)
            else:
                draft.texts[i] = "" if is_chat else join_plain(group.prompt, completion.content)
        return draft

    def _encode_chats(self, drafts: Sequence[_Draft]) -> None:
        if self._template is None:
            return
        conversations = [draft.group.conversation(i) for draft in drafts for i in draft.texts]
        try:
            texts = iter(render_texts(self.tokenizer, self._template.text, conversations))
        except TemplateError:
            texts = self._render_each(drafts, self._template.text)
        eos = self.tokenizer.eos_token
        for draft in drafts:
            draft.texts = {i: self.position.end_text(next(texts), eos) for i in draft.texts}
        rows = self._encoder.encode_groups([list(draft.texts.values()) for draft in drafts])
        for draft, ids in zip(drafts, rows, strict=True):
            draft.ids = dict(zip(draft.texts, ids, strict=True))
        if self._template.is_frozen:
            self.counts.dates_frozen += len(conversations)

    def _render_each(self, drafts: Sequence[_Draft], template: str) -> Iterator[str]:
        for draft in drafts:
            for i in draft.texts:
                try:
                    yield from render_texts(self.tokenizer, template, [draft.group.conversation(i)])
                except TemplateError as error:
                    raise TemplateError(
                        f"{draft.name}, completion {i}: the chat template refused the conversation ({error}); "
                        "change its turns, or render it as text with --plain"
                    ) from error

    def _encode_plain(self, drafts: Sequence[_Draft]) -> None:
        eos, adds = self.tokenizer.eos_token, self.position.name is not ScorePosition.EOS
        texts = [self.position.end_text(text, eos) for draft in drafts for text in draft.texts.values()]
        rows = iter(self._encoder.encode_texts(texts, add_special_tokens=adds))
        for draft in drafts:
            draft.ids = {i: next(rows) for i in draft.texts}

    def _complete(self, draft: _Draft) -> None:
        """Append EOS where it is missing, remove what comes after the position of the score, refuse a doubled BOS."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        is_open = len(self._eos) > 0 and not (
            draft.is_chat and self._template is not None and self._template.is_closing
        )
        for i, row in list(draft.ids.items()):
            if bos is not None and len(row) > 1 and row[0] == row[1] == bos:
                source = "the chat template and the messages" if draft.is_chat else "the tokenizer and the text"
                raise TemplateError(
                    f"{draft.name}, completion {i}: two {self.tokenizer.bos_token!r} came at the head, one from "
                    f"each of {source}, and one was needed; take it out of one of them"
                )
            if is_open and (len(row) == 0 or row[-1] != eos):
                draft.ids[i] = np.concatenate([row, self._eos])
                self.counts.eos_appended += 1
            elif len(row) and self.position != LAST_TOKEN:
                draft.ids[i] = self._drop_unread(row)
            elif len(row) == 0:
                del draft.ids[i]
                self._leave_unscored(draft, i, EMPTY, EMPTY)

    def _drop_unread(self, row: Ids, *, least: int = 1) -> Ids:
        """The tokens up to the one at which the score is read."""
        size = len(row)
        if self.position.name is ScorePosition.CLOSING:
            size -= self._count_trailing(row)
        while size > least and self.position.drops(int(row[size - 1])):
            size -= 1
        return row[:size]

    def _fit(self, draft: _Draft) -> None:
        limit, policy = self.limit, self.settings.overlength
        long = [i for i, row in draft.ids.items() if limit is not None and len(row) > limit]
        if limit is None or not long:
            return
        for i in long:
            reason = f"{TOO_LONG}: {len(draft.ids[i]):,} tokens came, at most {limit:,} fit"
            if policy is Overlength.ERROR:
                raise DataError(
                    f"{draft.name}, completion {i}: {len(draft.ids[i]):,} tokens came with the prompt, at most "
                    f"{limit:,} fit; raise --max-length if the model can read more, or choose --overlength "
                    "drop, left, right or unscored"
                )
            if policy is Overlength.LEFT:
                head = min(self._count_system(draft, i, limit), limit - 1) if self.settings.keep_system else 0
                draft.ids[i] = np.concatenate([draft.ids[i][:head], draft.ids[i][head - limit :]])
                self.counts.truncated_left += 1
            elif policy is Overlength.RIGHT:
                closing = _count_common_end(draft.ids[i], self._closing if draft.is_chat else self._eos)
                tail = closing if closing < limit else 0
                row = draft.ids[i]
                draft.ids[i] = np.concatenate([row[: limit - tail], row[len(row) - tail :]])
                self.counts.truncated_right += 1
            elif policy is Overlength.UNSCORED:
                del draft.ids[i]
                self._leave_unscored(draft, i, reason, TOO_LONG)
            else:
                del draft.ids[i]
                draft.unscored[i] = reason
                draft.dropped = draft.dropped or f"completion {i} is {reason}"
        self.counts.dropped += policy is Overlength.DROP

    def _count_system(self, draft: _Draft, index: int, limit: int) -> int:
        """How many leading tokens hold the system message, or BOS alone where there is none."""
        row, turns = draft.ids[index], draft.group.conversation(index)
        if turns[0].get("role") != "system":
            return int(row[0] == self.tokenizer.bos_token_id)
        words, text = content_text(turns[0].get("content")).strip(), draft.texts[index]
        alone = self._render_alone(turns[0]) if draft.is_chat else ""
        if not (alone and words in alone and text.startswith(alone)):
            # The template puts the message inside the first turn: keep what leads up to its end.
            if words not in text:
                raise TemplateError(
                    f"{draft.name}: the system message was to be kept, but the rendered conversation does not hold its "
                    "text; use another --overlength policy than left with the system message kept"
                )
            alone = text[: text.index(words) + len(words)]
        size = _count_common_start(row, self._encoder.encode_texts([alone], add_special_tokens=not draft.is_chat)[0])
        if size >= limit:
            raise DataError(
                f"{draft.name}, completion {index}: the system message alone takes {size:,} of at most {limit:,} "
                "tokens; raise --max-length, or do not keep the system message"
            )
        return size

    def _render_alone(self, turn: Message) -> str:
        assert self._template is not None
        try:
            return render_texts(self.tokenizer, self._template.text, [[turn]])[0]
        except TemplateError:
            # A template may insist on a user turn; then the message is looked for in the whole text.
            return ""

    def _find_identical(self, draft: _Draft, before: Mapping[int, bytes]) -> None:
        after = {i: row.tobytes() for i, row in draft.ids.items()}
        if len(set(after.values())) == len(after):
            return
        told = [(c.better, c.worse) for c in draft.group.comparisons() if not c.is_tie]
        claims = {(a, b) for a, b in told if a in after and b in after}
        same = sorted((a, b) for a, b in claims if after[a] == after[b])
        draft.identical = tuple((a, b) for a, b in same if before[a] != before[b])
        self.counts.identical_after_truncation += len(draft.identical)
        texts = [completion.content for completion in draft.group.completions]
        self.counts.identical_as_rendered += sum(before[a] == before[b] and texts[a] != texts[b] for a, b in same)
        if draft.identical and len(draft.identical) == len(claims) and draft.dropped is None:
            draft.dropped = "its compared completions became identical by truncation"

    def _close_draft(self, draft: _Draft) -> Rendered:
        indices = range(len(draft.group.completions))
        ids = tuple(draft.ids.get(i) for i in indices)
        return Rendered(
            ids=ids,
            unscored=tuple(draft.unscored.get(i) for i in indices),
            dropped=draft.dropped,
            identical=draft.identical,
            trailing=tuple(self._count_trailing(row) if draft.is_chat else 0 for row in ids),
        )

    def _count_trailing(self, row: Ids | None) -> int:
        """Tokens of white space after the closing token; 0 where truncation left another end than the template's."""
        size = self.trailing + 1
        is_whole = row is not None and len(row) >= size and np.array_equal(row[-size:], self._end)
        return self.trailing if is_whole else 0

    def _leave_unscored(self, draft: _Draft, index: int, reason: str, kind: str) -> None:
        draft.unscored[index] = reason
        self.counts.unscored[kind] += 1

    def _note_choices(self) -> None:
        tokenizer, template, say = self.tokenizer, self._template, self.notes.append
        if self.settings.plain:
            say("every group is rendered as plain text, as asked")
        elif template is None:
            say("the tokenizer has no chat template: every group is rendered as plain text")
        elif template.is_frozen:
            say(f"the chat template prints today's date: frozen to {FROZEN_DATE:%d %B %Y}, so that scores do not drift")
        if tokenizer.eos_token_id is None:
            say("the tokenizer has no EOS token: none is appended to plain text")
        elif template and not template.is_closing:
            say(f"the chat template ends an answer with nothing: EOS {tokenizer.eos_token!r} is appended")
        elif template and not any(text in template.tail for text in special_tokens(tokenizer).values()):
            say(f"the chat template ends an answer with {template.tail!r}, which is no special token: kept as it is")
        if self.pad_id != tokenizer.pad_token_id:
            own = tokenizer.pad_token
            came = "has no pad token" if own is None else f"pads with {own!r}, which can end a conversation"
            token = tokenizer.convert_ids_to_tokens(self.pad_id)
            say(f"the tokenizer {came}: {token!r} (id {self.pad_id}) pads instead")


def _check_limit(max_length: int | None, context_length: int | None) -> int | None:
    if max_length is None:
        return context_length
    if max_length < 1:
        raise ConfigError(f"max_length {max_length} came, at least 1 was needed")
    if context_length is not None and max_length > context_length:
        raise ConfigError(
            f"max_length {max_length:,} came, but the model reads at most {context_length:,} tokens; lower it to that"
        )
    return max_length


def _count_common_start(a: Ids, b: Ids) -> int:
    size = min(len(a), len(b))
    differs = np.flatnonzero(a[:size] != b[:size])
    return int(differs[0]) if len(differs) else size


def _count_common_end(a: Ids, b: Ids) -> int:
    return _count_common_start(a[::-1], b[::-1])
