"""When two prompts, or two Groups, are the same; and lots that are drawn by what a thing is, not by where it stands.

Stands on `group`, above everything that counts, splits or compares data. Two prompts are the same if they differ only
in case, in white space, or in whether a lone question came as text or as a turn. Invariant: keys and lots depend on
content and seed alone, so the order in which files are listed changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence

from plaudit.group import Content, Group, Label, Message, Preference, Ranking, Ratings, Tie

Key = bytes
"""A digest of 16 bytes; equal keys mean the same thing for all that can happen by chance."""

SHOWN = 60
"""Characters of a prompt that a person is shown."""


def normalise_text(text: str) -> str:
    """`text` without what two copies of it may differ in: case, white space, and how a character is composed."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def prompt_key(group: Group) -> Key:
    """What tells this Group's prompt from others. Without a prompt, what all completions begin with stands for it."""
    return digest_texts(normalise_text(part) for part in _prompt_texts(group))


def opening_key(group: Group) -> Key:
    """What tells the conversation from others: the prompt up to the first thing that its user says.

    Prompts that are further turns of one conversation have the same opening, and know each other's answers.
    """
    prompt = () if isinstance(group.prompt, str) else group.prompt
    first = next((at for at, turn in enumerate(prompt) if turn.get("role") == "user"), -1)
    if first < 0 or first == len(prompt) - 1:
        return prompt_key(group)
    return digest_texts(normalise_text(part) for part in _turn_texts(prompt[: first + 1]))


def show_prompt(group: Group) -> str:
    """The end of the prompt on one short line, for a person who has to find it."""
    texts = _prompt_texts(group)
    text = " ".join(texts[-1].split()) if texts else ""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def digest_texts(texts: Iterable[str]) -> Key:
    """One key of several texts; where one ends and the next begins is part of it."""
    # A lone surrogate can come from JSON, and is a difference like any other.
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def content_key(content: Content) -> Key:
    """What tells one completion from another, to the letter."""
    if isinstance(content, str):
        return digest_texts(("text", content))
    if len(content) == 1 and content[0].keys() == {"role", "content"} and content[0]["role"] == "assistant":
        # A lone answer is the same whether it came as text or as the assistant's turn.
        return digest_texts(("text", turn_text(content[0])))
    return digest_texts(("turns", *_turn_texts(content)))


def group_key(group: Group, completion_keys: Sequence[Key]) -> Key:
    """What tells a Group from others, to the letter: prompt, completions in any order, and what is believed of them."""
    texts = ["prompt", *_turn_texts(group.prompt), "completions", *sorted(key.hex() for key in completion_keys)]
    return digest_texts([*texts, "labels", *sorted(_label_text(label, completion_keys) for label in group.labels)])


def draw_lot(seed: int, purpose: str, *keys: Key) -> int:
    """A number below 2**64 that looks random and is the same for the same things at every time."""
    digest = hashlib.blake2b(digest_size=8, key=seed.to_bytes(16, "little", signed=True), person=purpose.encode())
    for key in keys:
        digest.update(key)
    return int.from_bytes(digest.digest(), "little")


def turn_text(turn: Message) -> str:
    """What a turn says, as one text; what is no text is written as JSON."""
    said = turn.get("content")
    return said if isinstance(said, str) else _as_json(said)


def _prompt_texts(group: Group) -> list[str]:
    """The prompt in pieces: role and content of each turn."""
    texts = _turn_texts(group.prompt)
    if any(text.strip() for text in texts[1::2]):
        return texts
    beginnings = [completion.text for completion in group.completions]
    first, last = min(beginnings), max(beginnings)
    shared = first[: next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    # A shared beginning runs into the answers by chance, so it is cut back to its last whole line, or word.
    end = max(shared.rfind("\n"), 0) or max(shared.rfind(" "), 0)
    return ["user", shared[:end]] if shared[:end].strip() else ["completions", *sorted(beginnings)]


def _turn_texts(content: Content) -> list[str]:
    """Role and words of each turn, one after the other; plain text is what a user says."""
    if isinstance(content, str):
        return ["user", content]
    texts = []
    for turn in content:
        rest = {name: value for name, value in turn.items() if name not in ("role", "content")}
        texts += [str(turn.get("role")) + (_as_json(rest) if rest else ""), turn_text(turn)]
    return texts


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _label_text(label: Label, keys: Sequence[Key]) -> str:
    """A label as text that names completions by what they are, not by their number."""
    names = [keys[k].hex() for k in label.indices()]
    match label:
        case Preference():
            said = f"{names} by {label.margin}"
        case Tie():
            said = str(sorted(names))
        case Ranking():
            said = str(names)
        case Ratings():
            said = str(sorted(zip(names, map(str, label.ratings), strict=True)))
        case _:
            said = str([(keys[c.better].hex(), keys[c.worse].hex()) for c in label.comparisons()])
    return f"{type(label).__name__} {said} {label.by} {label.weight}"
