"""Two answers side by side and a verdict between them: what JudgeBench, LLMBar and PPE have in common.

Under those dialects in `formats`; no dialect itself. Invariant: answers keep the order of the row, and the verdict is
one of a closed list of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plaudit.errors import CodingError
from plaudit.formats.content import (
    Raw,
    build_group,
    check_plain_label,
    refuse,
    take_content,
    write_content,
    write_fields,
    wrong,
)
from plaudit.group import Group, Label, Preference, Tie


@dataclass(frozen=True, kw_only=True, slots=True)
class Versus:
    """The column names of such rows, and the words of the verdict: for the first, the second, neither."""

    title: str
    prompt: str
    first: str
    second: str
    verdict: str
    words: tuple[Any, Any, Any]
    id_field: str = "id"

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that have to be there."""
        return self.prompt, self.first, self.second, self.verdict

    def detect(self, raw: Raw) -> bool:
        """All four columns are there, and the verdict is one of the words."""
        return all(name in raw for name in self.fields) and self.find_word(raw[self.verdict]) is not None

    def find_word(self, value: object) -> int | None:
        """Which word came: 0 the first answer, 1 the second, 2 neither. Tables give a number as text or as a float."""
        for place, word in enumerate(self.words):
            if word is None or type(value) not in (str, int, float):
                continue
            if value == word or (type(value) is str and value == str(word)):
                return place
        return None

    def to_group(self, raw: Raw, meta: Mapping[str, Any] | None = None) -> Group:
        """The Group of two with the row's verdict."""
        answers = [take_content(raw, self.first), take_content(raw, self.second)]
        prompt = take_content(raw, self.prompt)
        place = self.find_word(raw.get(self.verdict))
        if place is None:
            words = ", ".join(repr(word) for word in self.words if word is not None)
            value = raw.get(self.verdict)
            if value is None:
                raise wrong(value, self.verdict, f"one of {words}")
            # Another code, such as 0 beside 1, says that the column is coded in another way: then a row with a word
            # that is known may mean something else, too, and skipping the others would bias the labels.
            raise CodingError(
                f"expected one of {words}, got {str(value)[:40]!r}. Recode the whole column; --bad-rows does not "
                "skip this, because the labels that remain would be biased",
                field=self.verdict,
            )
        label: Label = Tie(tie=(0, 1)) if place == 2 else Preference(better=place, worse=1 - place)
        return build_group(
            raw, self.fields, prompt=prompt, completions=answers, labels=(label,), id_field=self.id_field, meta=meta
        )

    def to_row(self, group: Group, skip_meta: Iterable[str] = ()) -> Raw:
        """The row of a Group of two with one plain verdict."""
        label = group.labels[0] if len(group.labels) == 1 and len(group.completions) == 2 else None
        if isinstance(label, Preference) and label.margin is None:
            word = self.words[label.better]
        elif isinstance(label, Tie) and label.tie == (0, 1):
            word = self.words[2]
        else:
            word = None
        if label is None or word is None:
            raise refuse(
                group, f"{self.title} rows hold two completions and one verdict between them, without a margin"
            )
        check_plain_label(group, label, self.title)
        first, second = (write_content(completion.content) for completion in group.completions)
        row = {self.prompt: write_content(group.prompt), self.first: first, self.second: second, self.verdict: word}
        return write_fields(group, row, id_field=self.id_field, skip_meta=skip_meta)
