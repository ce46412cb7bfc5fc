"""consumers.py: each consumer's verdict on a folder, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plaudit.consumers import Consumer, check_folder
from plaudit.lora import LoraSettings, attach_lora, save_adapter
from plaudit.score import RewardModel
from plaudit.specimen import Sample, draw_starter_sample, score_sample
from speller import make_tokenizer, save_speller
from stranger import ask_nearby
from tiny import save_model, widen

NAMES = ["transformers", "pipeline", "TRL", "OpenRLHF", "vLLM", "SGLang"]


@pytest.fixture(autouse=True)
def nearby(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    return ask_nearby(monkeypatch)


@pytest.fixture
def net(tmp_path: Path) -> RewardModel:
    return RewardModel.load(save_speller(tmp_path / "from", kind="classifier", context=2048), dtype="float32")


def check(net: RewardModel, folder: Path, sample: Sample | None = None) -> dict[str, Consumer]:
    sample = sample or draw_starter_sample(net)
    return {consumer.name: consumer for consumer in check_folder(folder, sample, score_sample(net, sample))}


def change(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text()) | changes
    gone = [key for key, value in changes.items() if value is None]
    (folder / "config.json").write_text(json.dumps({key: x for key, x in config.items() if key not in gone}))
    return folder


def test_what_we_write_is_fine_for_everyone(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, net.save(tmp_path / "model"))
    assert list(found) == NAMES and all(consumer.ok for consumer in found.values()), found
    assert [found[name].how for name in NAMES] == ["ran"] * 4 + ["held against its documents"] * 2
    assert found["transformers"].why.startswith("all tensors in place, 8 rows, scores to ")
    assert "start it with --dtype float32" in found["vLLM"].why
    assert "no mean and std stored" in found["OpenRLHF"].why


def test_openrlhf_is_told_of_mean_and_std(net: RewardModel, tmp_path: Path) -> None:
    card = {"normalisation": {"mean": 0.25, "std": 2.0, "count": 9, "source": "some data"}}
    folder = net.save(tmp_path / "model", card=card)
    assert "normalises by 0.25, 2 when told to" in check(net, folder)["OpenRLHF"].why
    change(folder, std=None)
    found = check(net, folder)["OpenRLHF"]
    assert not found.ok and "it reads both or neither" in found.why


def test_a_head_of_another_name_is_for_openrlhf_alone(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, net.save(tmp_path / "model", head_prefix="value_head"))
    assert [name for name in NAMES if found[name].ok] == ["OpenRLHF"]
    assert "head 'value_head'" in found["OpenRLHF"].why
    assert found["vLLM"].why == "its head is value_head.weight, and score.weight is looked for"
    assert found["TRL"].why == "a tensor is missing (score.weight)"


@pytest.mark.parametrize(
    ("changes", "who", "why"),
    [
        ({"problem_type": None}, "vLLM", "without problem_type regression it puts a sigmoid on the score"),
        ({"problem_type": None}, "pipeline", "its scores are others ("),
        ({"architectures": ["RewardModel"]}, "vLLM", "its architecture is RewardModel, and only *ForSequenceClass"),
        (
            {"architectures": ["RewardModel"]},
            "SGLang",
            "it has no class for RewardModel; those with a score are Llama, ",
        ),
        (
            {"id2label": None, "label2id": None, "num_labels": None},
            "SGLang",
            "its config.json says 2 labels (id2label)",
        ),
    ],
)
def test_a_convention_that_is_broken_is_named(
    changes: dict[str, Any], who: str, why: str, net: RewardModel, tmp_path: Path
) -> None:
    found = check(net, change(net.save(tmp_path / "model"), **changes))[who]
    assert not found.ok and why in found.why


def test_what_only_servers_mind_is_no_fault_to_others(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, change(net.save(tmp_path / "model"), problem_type=None))
    assert [name for name in NAMES if not found[name].ok] == ["pipeline", "vLLM"]


def test_a_bos_that_would_come_twice_is_said(net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer("<s>" + make_tokenizer().chat_template)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    net.tokenizer = tokenizer
    found = check(net, net.save(tmp_path / "model"))
    assert found["pipeline"].ok and "pass add_special_tokens=False, or BOS comes twice" in found["pipeline"].why
    assert "send messages, not rendered text" in found["vLLM"].why and found["TRL"].ok


def test_without_a_template_a_pipeline_does_not_know_how_to_render(net: RewardModel, tmp_path: Path) -> None:
    net.tokenizer = make_tokenizer(None)
    found = check(net, net.save(tmp_path / "model"))
    assert found["transformers"].ok and found["OpenRLHF"].ok
    assert not found["TRL"].ok and "has no chat template" in found["TRL"].why


def test_an_encoder_is_for_those_that_have_its_class(tmp_path: Path) -> None:
    net = RewardModel.load(save_model(tmp_path / "from", "modernbert"), dtype="float32")
    found = check(net, net.save(tmp_path / "model"))
    assert found["transformers"].ok and found["vLLM"].ok and not found["SGLang"].ok and not found["OpenRLHF"].ok


def test_a_family_that_transformers_has_no_class_for(tmp_path: Path) -> None:
    net = RewardModel.load(save_model(tmp_path / "lm", "granite", kind="lm"), dtype="float32", new_head=True)
    widen(net.hf)
    found = check(net, net.save(tmp_path / "model"))
    assert found["transformers"].ok and found["vLLM"].ok and not found["SGLang"].ok


def test_an_adapter_is_for_peft(net: RewardModel, tmp_path: Path) -> None:
    attach_lora(net, LoraSettings(rank=2))
    found = check(net, save_adapter(net, tmp_path / "adapter"))
    assert [name for name, consumer in found.items() if consumer.ok] == ["transformers + peft", "transformers alone"]
    assert found["vLLM"].why == "it takes whole models; export this adapter with --merge"


def test_trl_and_pipelines_that_give_other_scores_are_not_fine(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plaudit import consumers

    ask: Callable[..., Any] = consumers.Witness.ask

    def lie(self: Any, question: Any) -> Any:
        answer = ask(self, question)
        said = answer["ways"]["transformers"]
        said["trl"]["scores"][0] += 1.0
        said["pipeline"] = {"error": "ValueError: no pipeline"}
        return answer

    monkeypatch.setattr(consumers.Witness, "ask", lie)
    found = check(net, net.save(tmp_path / "model"))
    assert not found["TRL"].ok and found["TRL"].why.startswith("its scores are others (")
    assert (found["pipeline"].ok, found["pipeline"].why) == (False, "ValueError: no pipeline")
    assert found["transformers"].ok
