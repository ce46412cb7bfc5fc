"""A Scorer that writes down what it scored, so that a job which is killed does not score it again.

Stands on `score`; for jobs that make their Groups up as they go, such as probes, and so have no file of rows that
`scorefile` could go on with. Scores of a window of Groups are one line of a file, under what tells those Groups from
others; a file of another plan is begun anew. Invariant: a Group gets the scores that were written for it, or is scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.keys import content_key, digest_texts, group_key

if TYPE_CHECKING:
    from plaudit.group import Group
    from plaudit.score import Scorer, Scores

WINDOW = 16
"""Groups that are written down together: what is lost at most."""


class Journal:
    """Scores Groups as `scorer` does, in order; what `file` holds of the same `plan` is taken from there."""

    def __init__(self, scorer: Scorer, file: Path, plan: str) -> None:
        self.scorer, self.file, self.plan = scorer, file, plan
        self.completions = self.resumed = 0
        self._known = self._read()

    def _read(self) -> dict[str, list[Any]]:
        """What is written, by the Groups it is of; a torn last line is none."""
        found: dict[str, list[Any]] = {}
        try:
            head, *lines = self.file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return {}
        if head != json.dumps({"plan": self.plan}):
            return {}
        for line in lines:
            try:
                entry = json.loads(line)
                found[entry["groups"]] = entry["scores"]
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def score_groups(self, groups: Iterable[Group]) -> Iterator[Scores]:
        """Scores of each Group, in order."""
        from plaudit.score import Scores

        source = iter(groups)
        with self.file.open("a" if self._known else "w", encoding="utf-8") as stream:
            # After a torn line, on a line of its own.
            stream.write("\n" if self._known else json.dumps({"plan": self.plan}) + "\n")
            while window := list(islice(source, WINDOW)):
                key = _name(window)
                kept = self._known.get(key)
                if kept is not None:
                    self.resumed += len(window)
                else:
                    scored = self.scorer.score_window(window)
                    kept = [[one.scores, one.unscored, one.dropped] for one in scored]
                    stream.write(json.dumps({"groups": key, "scores": kept}) + "\n")
                    stream.flush()
                for scores, unscored, dropped in kept:
                    self.completions += len(scores)
                    yield Scores(scores=tuple(scores), unscored=tuple(unscored), dropped=dropped)

    def remove(self) -> None:
        """Forget the scores, once what was made of them is on the disk."""
        self.file.unlink(missing_ok=True)


def _name(groups: Iterable[Group]) -> str:
    """What tells these Groups from others: every word of their prompts and completions."""
    texts: list[str] = []
    for group in groups:
        keys = [content_key(completion.content) for completion in group.completions]
        # A text and a lone turn have one key, and are rendered differently without a chat template.
        contents = (group.prompt, *(completion.content for completion in group.completions))
        texts += ["text" if isinstance(content, str) else "turns" for content in contents]
        texts += [group_key(group, keys).hex(), *(key.hex() for key in keys)]
    return digest_texts(texts).hex()
