"""The noun: a Group is one prompt with N completions, and Labels say what someone believes about them.

First room of the river: it imports only `errors`, holds no torch, and every other room speaks in these records. A
preference pair is a Group of two; there is no pair class. Labels keep the form they came in (`Preference`, `Tie`,
`Ranking`, `Ratings`), so that writing gives back what was read, and all of them answer one question in one form:
`comparisons()`. Invariant: a Group that exists is well formed; its labels point at completions that are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plaudit.errors import DataError

Message = Mapping[str, Any]
"""One turn of a conversation: `role`, `content`, and whatever else a chat template reads (tool calls, names)."""

Content = str | tuple[Message, ...]
"""Plain text, or the turns of a conversation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The one internal form of a label: `better` over `worse`, or a tie between them, by whom and how sure."""

    better: int
    worse: int
    is_tie: bool = False
    margin: float | None = None
    weight: float = 1.0
    by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What someone believes about the completions of a Group. Use one of the four kinds below."""

    by: str | None = None
    weight: float = 1.0

    def comparisons(self) -> Iterator[Comparison]:
        """The label as comparisons of two, strongest claim first."""
        raise NotImplementedError

    def indices(self) -> tuple[int, ...]:
        """The completions that the label speaks of."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference(Label):
    """`better` is preferred to `worse`, by `margin` if one was given."""

    better: int
    worse: int
    margin: float | None = None

    def comparisons(self) -> Iterator[Comparison]:
        """One comparison."""
        yield Comparison(better=self.better, worse=self.worse, margin=self.margin, weight=self.weight, by=self.by)

    def indices(self) -> tuple[int, ...]:
        """The two that were compared."""
        return self.better, self.worse


@dataclass(frozen=True, kw_only=True, slots=True)
class Tie(Label):
    """The completions in `tie` are equally good to this labeller."""

    tie: tuple[int, ...]

    def comparisons(self) -> Iterator[Comparison]:
        """Every two of them, tied."""
        for i, a in enumerate(self.tie):
            for b in self.tie[i + 1 :]:
                yield Comparison(better=a, worse=b, is_tie=True, weight=self.weight, by=self.by)

    def indices(self) -> tuple[int, ...]:
        """The tied completions."""
        return self.tie


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking(Label):
    """`order` lists completions best first; completions that are left out were not ranked."""

    order: tuple[int, ...]

    def comparisons(self) -> Iterator[Comparison]:
        """Every two of the ranked completions, in order."""
        for i, a in enumerate(self.order):
            for b in self.order[i + 1 :]:
                yield Comparison(better=a, worse=b, weight=self.weight, by=self.by)

    def indices(self) -> tuple[int, ...]:
        """The ranked completions."""
        return self.order


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratings(Label):
    """One number a completion, higher is better; `None` is "not rated", never zero."""

    ratings: tuple[float | None, ...]

    def comparisons(self) -> Iterator[Comparison]:
        """Every two rated completions: the margin is the difference of their ratings, equal ratings are a tie."""
        rated = [(i, r) for i, r in enumerate(self.ratings) if r is not None]
        for n, (i, a) in enumerate(rated):
            for j, b in rated[n + 1 :]:
                best, worst = (i, j) if a >= b else (j, i)
                yield Comparison(
                    better=best, worse=worst, is_tie=a == b, margin=abs(a - b) or None, weight=self.weight, by=self.by
                )

    def indices(self) -> tuple[int, ...]:
        """All completions: a rating list names every one, with None for those that were not rated."""
        return tuple(range(len(self.ratings)))


def content_text(content: object) -> str:
    """The text of one turn's content: the text itself, the joined text parts of a list of parts, or nothing for None.

    Raises DataError for anything else. An image cannot be scored by a model of text, and a Python repr must never
    stand in for a text.
    """
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list | tuple):
        raise DataError(f"expected text or a list of text parts, got {type(content).__name__}", field="content")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type", "no type") if isinstance(part, Mapping) else type(part).__name__
            raise DataError(
                f"expected text parts, got a part of type {str(kind)[:40]!r}; plaudit scores text. Remove the part",
                field="content",
            )
        texts.append(text)
    return "".join(texts)


def plain_turn(turn: Message) -> Message:
    """The turn with its content as text: chat templates differ in what they make of a list of parts."""
    content = turn.get("content")
    return turn if isinstance(content, str) or content is None else {**turn, "content": content_text(content)}


def plain_content(content: Content) -> Content:
    """`content` whose turns hold text; the same object if they do already."""
    if isinstance(content, str) or all(isinstance(turn.get("content"), str | None) for turn in content):
        return content
    return tuple([plain_turn(turn) for turn in content])


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One answer to the Group's prompt: text, or the turns that answer it. Text parts of a turn become its text."""

    content: Content

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", plain_content(self.content))

    @property
    def text(self) -> str:
        """The answer as text: the contents of its turns, joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(m.get("content") or "" for m in self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One prompt, N completions, and the labels over them. Raises DataError if they do not fit together.

    Text parts of a turn become its text, here and in completions.
    """

    prompt: Content
    completions: tuple[Completion, ...]
    labels: tuple[Label, ...] = ()
    id: str | None = None
    subset: str | None = None
    source: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", plain_content(self.prompt))
        if not self.completions:
            raise DataError("a group without completions came, at least one was needed", field="completions")
        for label in self.labels:
            check_label(label, len(self.completions))

    def comparisons(self) -> Iterator[Comparison]:
        """All labels in their one internal form."""
        for label in self.labels:
            yield from label.comparisons()

    def conversation(self, index: int) -> tuple[Message, ...]:
        """Prompt and completion `index` as the turns of one conversation; plain text becomes a user's and an answer."""
        prompt, answer = self.prompt, self.completions[index].content
        head = ({"role": "user", "content": prompt},) if isinstance(prompt, str) and prompt else prompt
        tail = ({"role": "assistant", "content": answer},) if isinstance(answer, str) else answer
        return (*(head or ()), *tail)

    @property
    def is_plain(self) -> bool:
        """Whether prompt and completions are all plain text, with no turns anywhere."""
        return isinstance(self.prompt, str) and all(isinstance(c.content, str) for c in self.completions)


def pair(prompt: Content, chosen: Content, rejected: Content, *, margin: float | None = None, **rest: Any) -> Group:
    """A Group of two in which completion 0 was chosen over completion 1."""
    labels = (Preference(better=0, worse=1, margin=margin),)
    return Group(
        prompt=prompt, completions=(Completion(content=chosen), Completion(content=rejected)), labels=labels, **rest
    )


def check_label(label: Label, num_completions: int) -> None:
    """Raise DataError unless the label speaks of completions that are there, each at most once, in finite numbers."""
    indices = label.indices()
    if isinstance(label, Ratings):
        if len(indices) != num_completions:
            raise DataError(
                f"{len(indices)} ratings came for {num_completions} completions; one each was needed", field="labels"
            )
        bad = [r for r in label.ratings if r is not None and not math.isfinite(r)]
        if bad:
            raise DataError(f"rating {bad[0]!r} came, a finite number or null was needed", field="labels")
    outside = [i for i in indices if not 0 <= i < num_completions]
    if outside:
        raise DataError(
            f"a label names completion {outside[0]}, but there are {num_completions} (counted from 0)", field="labels"
        )
    if len(set(indices)) != len(indices):
        raise DataError(f"a label names a completion twice: {list(indices)}", field="labels")
    if not isinstance(label, Ratings) and len(indices) < 2:
        raise DataError(f"a label that compares needs at least two completions, {len(indices)} came", field="labels")
    margin = getattr(label, "margin", None)
    if margin is not None and not math.isfinite(margin):
        raise DataError(f"margin {margin!r} came, a finite number was needed", field="labels")
    if not (math.isfinite(label.weight) and label.weight >= 0):
        raise DataError(f"weight {label.weight!r} came, a finite number of at least 0 was needed", field="labels")
