"""Settings as TrainingArguments: ours are said once, the rest passes through, and nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from plaudit.arguments import best_metric, build_arguments, check_device
from plaudit.config import read_config
from plaudit.errors import ConfigError

BASE = {"model": "m", "data": ["d"], "out": "o"}
SETTLED = ("train.learning_rate=0.01", "train.eval_every=2", "train.save_every=2")


def build(tmp_path: Path, *overrides: str, evals: tuple[str, ...] = ("held",)) -> TrainingArguments:
    said = {text.partition("=")[0] for text in overrides}
    told = [*(text for text in SETTLED if text.partition("=")[0] not in said), *overrides]
    config = read_config(None, told, BASE).config
    return build_arguments(config, tmp_path, evals=evals, device="cpu", is_narrow=False)


def test_what_others_know_passes_through(tmp_path: Path) -> None:
    args = build(tmp_path, "hf.torch_compile=false", "hf.run_name=mine", "hf.adam_epsilon=1e-6")
    assert (args.run_name, args.adam_epsilon, args.report_to) == ("mine", 1e-6, [])


def test_a_name_that_nobody_knows_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hf\.adam_epsilom came.*did you mean hf\.adam_epsilon\?"):
        build(tmp_path, "hf.adam_epsilom=1e-6")


def test_one_process_trains_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    config = read_config(None, SETTLED, BASE).config
    args = build_arguments(config, tmp_path, evals=("held",), device="cuda", is_narrow=False)
    assert args.n_gpu == 1  # the Trainer would run every pack on each of four


def test_another_gpu_than_the_first_is_refused() -> None:
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    check_device(torch.device("cpu"), torch.device("cpu"))
    check_device(torch.device("cuda"), first)
    check_device(second, second)
    with pytest.raises(ConfigError, match=r"expected cuda:0, .* got cuda:1.*CUDA_VISIBLE_DEVICES=1"):
        check_device(second, first)


def test_trackers_are_asked_for_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"report_to=tensorbord came.*did you mean tensorboard\?"):
        build(tmp_path, "hf.report_to=tensorbord")
    for there in (["tensorboard"], []):
        monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda there=there: there)
        if there:
            assert build(tmp_path, "hf.report_to=tensorboard").report_to == ["tensorboard"]
            continue
        with pytest.raises(ConfigError, match="tensorboard is not installed; pip install tensorboard"):
            build(tmp_path, "hf.report_to=tensorboard")


SCHEDULES: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "cosine": ((), "cosine_with_min_lr", {"min_lr_rate": 0.1}),
    "cosine to nothing": (("train.min_rate_share=0",), "cosine", {}),
    "cosine, told more": (
        ("hf.lr_scheduler_kwargs={num_cycles: 0.4}",),
        "cosine_with_min_lr",
        {"min_lr_rate": 0.1, "num_cycles": 0.4},
    ),
    "linear": (("train.schedule=linear",), "polynomial", {"lr_end": 0.001, "power": 1.0}),
    "linear, told more": (
        ("train.schedule=linear", "hf.lr_scheduler_kwargs={power: 2.0}"),
        "polynomial",
        {"lr_end": 0.001, "power": 2.0},
    ),
    "linear that stays": (("train.schedule=linear", "train.min_rate_share=1"), "constant_with_warmup", {}),
    "constant": (("train.schedule=constant",), "constant_with_warmup", {}),
    "constant at once": (("train.schedule=constant", "train.warmup=0"), "constant", {}),
    "by its own name": (
        ("train.schedule=warmup_stable_decay", "hf.lr_scheduler_kwargs={num_decay_steps: 3}"),
        "warmup_stable_decay",
        {"num_decay_steps": 3},
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_keeps_its_end_and_what_was_told_of_it(tmp_path: Path, name: str) -> None:
    overrides, wanted, more = SCHEDULES[name]
    args = build(tmp_path, *overrides)
    assert args.lr_scheduler_type == wanted
    assert (args.lr_scheduler_kwargs or {}) == pytest.approx(more)


@pytest.mark.parametrize(("schedule", "key"), [("cosine", "min_lr"), ("cosine", "min_lr_rate"), ("linear", "lr_end")])
def test_the_end_of_a_schedule_is_said_in_one_place(tmp_path: Path, schedule: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} came, which train\.min_rate_share decides here"):
        build(tmp_path, f"train.schedule={schedule}", f"hf.lr_scheduler_kwargs={{{key}: 0.001}}")


@pytest.mark.parametrize(
    ("best_by", "evals", "found"),
    [
        ("accuracy", ("a",), "accuracy"),
        ("a/loss", ("a",), "loss"),
        ("accuracy", ("a", "b"), "a_accuracy"),
        ("b/margin", ("a", "b"), "b_margin"),
    ],
)
def test_the_best_is_chosen_by_a_metric_that_is_there(best_by: str, evals: tuple[str, ...], found: str) -> None:
    assert best_metric(best_by, evals) == found


def test_less_is_better_of_a_loss_alone(tmp_path: Path) -> None:
    assert build(tmp_path, "train.best_by=held/loss").greater_is_better is False
    assert build(tmp_path, "train.best_by=margin").greater_is_better is True


def test_checkpoints_between_evaluations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.save_every=3 came with train\.eval_every=2"):
        build(tmp_path, "train.save_every=3")
    assert build(tmp_path, "train.save_every=3", evals=()).save_steps == 3
