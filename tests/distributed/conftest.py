"""A tiny model and its data, and the process that ranks are forked from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forks import Parent
from launches import write_groups
from tiny import save_model

TESTS = Path(__file__).resolve().parents[1]
IMPORTS = "plaudit.train, transformers.models.llama.modeling_llama, torch.distributed"


@pytest.fixture(scope="session")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Ranks as they are."""
    made = Parent(tmp_path_factory.mktemp("trainers"), imports=IMPORTS)
    yield made
    made.close()


@pytest.fixture(scope="session")
def sharders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Ranks that have FSDP on a CPU."""
    imports = f"sys; sys.path.insert(0, {str(TESTS)!r}); import fsdp_shim, {IMPORTS}"
    made = Parent(tmp_path_factory.mktemp("sharders"), imports=imports)
    yield made
    made.close()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a language model without a head, 57 groups to train on, and 11 to measure on."""
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "model")
    save_model(folder / "language", kind="lm")
    write_groups(folder / "train.jsonl", 57)
    write_groups(folder / "eval.jsonl", 11, seed=1)
    return folder
