"""Errors are a family with two parents, and each is one sentence."""

from __future__ import annotations

import inspect
import pickle

import pytest

from plaudit import errors
from plaudit.errors import DataError, InputError, InternalError, MissingExtraError, ModelError, PlauditError

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_everyone_is_of_the_family_and_refines_a_standard_error(kind: type[Exception]) -> None:
    assert issubclass(kind, PlauditError)
    if kind is not PlauditError:
        assert any(issubclass(kind, standard) for standard in (ValueError, RuntimeError, ImportError))


def test_input_errors_and_our_own_never_meet() -> None:
    assert [k.__name__ for k in FAMILY if issubclass(k, InputError) and issubclass(k, InternalError)] == []
    assert issubclass(ModelError, ValueError)
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "no prompt came"),
        ({"file": "a.jsonl"}, "a.jsonl: no prompt came"),
        ({"file": "a.jsonl", "line": 3}, "a.jsonl, line 3: no prompt came"),
        ({"file": "a.jsonl", "line": 0, "field": "prompt"}, "a.jsonl, line 0, field 'prompt': no prompt came"),
        ({"field": "prompt"}, "field 'prompt': no prompt came"),
    ],
)
def test_a_data_error_says_where(where: dict[str, object], text: str) -> None:
    error = DataError("no prompt came", **where)  # type: ignore[arg-type]
    assert str(error) == text
    assert error.reason == "no prompt came"
    assert (error.file, error.line, error.field) == (where.get("file"), where.get("line"), where.get("field"))


def test_a_missing_extra_says_the_one_line_that_installs_it() -> None:
    error = MissingExtraError("reading GGUF", "gguf")
    assert str(error) == "reading GGUF needs an extra that is not installed; run: pip install 'plaudit[gguf]'"


@pytest.mark.parametrize(
    "error",
    [
        DataError("a rating came", file="x", line=2, field="labels"),
        MissingExtraError("reading GGUF", "gguf"),
        ModelError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_a_process_boundary_unchanged(error: PlauditError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
