"""A folder a family, made once, and the untouched transformers model of each as the slow twin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.model import RewardNet
from tiny import FAMILIES, save_model, widen

Folders = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The family's folder: one head, a tokenizer, fp32 weights."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def build(family: str) -> Path:
        if FAMILIES[family].classifier:
            return save_model(root / family, family)
        # transformers ships no classification class: the folder is made from the language model by plaudit.
        net = RewardNet.load(save_model(root / f"{family}-lm", family, kind="lm"), dtype="float32", new_head=True)
        widen(net.hf)
        net.is_new = False
        return net.save(root / family)

    return build


@pytest.fixture(scope="session")
def net_of(folder_of: Folders) -> Callable[..., RewardNet]:
    """The family's network, as plaudit loads it."""

    @cache
    def load(family: str, dtype: str = "float32", invariant: bool = False) -> RewardNet:
        return RewardNet.load(folder_of(family), dtype=dtype, device="cpu", invariant=invariant)

    return load


@pytest.fixture(scope="session")
def twin_of(folder_of: Folders) -> Callable[..., Any]:
    """The family's model, as anyone loads it."""
    from transformers import AutoModelForSequenceClassification

    @cache
    def load(family: str, dtype: torch.dtype = torch.float32) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(folder_of(family), dtype=dtype)

    return load
