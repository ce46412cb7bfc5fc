"""A witness that is asked in this process: what a folder makes of its question, without the seconds that a start takes.

The tests of `proof` and `export` that are about a fresh process start one; the others ask this one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Self

import pytest
import torch
import transformers

from plaudit import consumers, export, proof
from plaudit.loading import quiet_transformers
from plaudit.witness import testify as answer_question


class Nearby:
    """Stands in for `proof.Witness`; `asked` are the questions, `lie` changes the answers."""

    asked: list[dict[str, Any]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        return None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        words = json.loads(json.dumps(question))
        self.asked.append(words)
        with torch.inference_mode(), quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a process of its own has its own filters
            answer = json.loads(json.dumps(answer_question(words)))
        return answer | {"torch": torch.__version__, "transformers": transformers.__version__, "plaudit": []}


def ask_nearby(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Have every proof ask nearby; gives the list of what is asked."""
    asked: list[dict[str, Any]] = []
    made = type("Nearby", (Nearby,), {"asked": asked})
    for room in (proof, export, consumers):
        monkeypatch.setattr(room, "Witness", made)
    return asked
