"""quantized.py: backbones of four and eight bits, under adapters. What multiplies needs bitsandbytes, an extra."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForSequenceClassification

from plaudit import quantized
from plaudit.errors import ConfigError, MissingExtraError
from plaudit.lora import LoraSettings, attach_lora, merging, save_adapter
from plaudit.proof import measure_difference, prove_folder
from plaudit.quantized import check_bits, describe_bits, find_layers, is_quantized
from plaudit.score import RewardModel
from plaudit.specimen import draw_starter_sample, score_sample
from speller import save_speller
from stranger import ask_nearby
from tiny import widen

needs_bits = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed; pip install 'plaudit[bits]'",
)
EIGHT = 0.03
"""Eight bits round what comes in as well, so a merged layer cannot do quite the same."""


def test_bits_that_there_are_not_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lora.bits=3 came, 4 or 8 was needed"):
        check_bits(3)


def test_without_the_extra_a_sentence_installs_it(monkeypatch: pytest.MonkeyPatch, tiny_reward: Path) -> None:
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: None)
    net = RewardModel.load(tiny_reward, dtype="float32")
    with pytest.raises(MissingExtraError, match=r"lora.bits=4 needs an extra.*pip install 'plaudit\[bits\]'"):
        attach_lora(net, LoraSettings(bits=4))
    assert type(net.hf.get_submodule("model.layers.0.mlp.up_proj")) is nn.Linear


def test_layers_are_all_linear_ones_but_those_that_are_trained_whole() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleDict({"c": nn.Linear(2, 2)}), "norm": nn.LayerNorm(2)})
    assert find_layers(net, []) == ["a", "b.c"]
    assert find_layers(net, ["b"]) == ["a"] and find_layers(net, ["a"]) == ["b.c"]
    assert not is_quantized(net["a"])


def save_wide(folder: Path) -> Path:
    """A speller whose matrices are wide enough for blocks of 64 weights."""
    save_speller(folder, kind="classifier", context=2048)
    config = LlamaConfig.from_pretrained(folder, hidden_size=64, intermediate_size=128, head_dim=16)
    model = LlamaForSequenceClassification(config)
    widen(model)
    model.save_pretrained(folder)
    return folder


def train(net: RewardModel) -> None:
    """Some steps towards something, through the quantized layers."""
    sample = draw_starter_sample(net, count=3)
    optimizer = torch.optim.AdamW([x for x in net.hf.parameters() if x.requires_grad], lr=0.02)
    for _ in range(3):
        for row in sample.rows:
            with net.plain_attention() as hf:
                score = hf(input_ids=torch.tensor([row.ids])).logits[0, 0]
            (score.float() - len(row.ids) / 100).square().backward()
        optimizer.step()
        optimizer.zero_grad()


@needs_bits
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "settings",
    [
        LoraSettings(rank=4, bits=4),
        LoraSettings(rank=4, bits=4, quant_type="fp4", double_quant=True),
        LoraSettings(rank=4, bits=4, dora=True),
        LoraSettings(rank=4, bits=8),
    ],
    ids=["nf4", "fp4", "dora", "eight"],
)
def test_an_adapter_is_merged_into_the_weights_that_it_was_trained_on(
    settings: LoraSettings, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask_nearby(monkeypatch)
    torch.manual_seed(0)
    net = RewardModel.load(save_wide(tmp_path / "base"), dtype=dtype)
    unquantized = score_sample(net, draw_starter_sample(net))
    said = attach_lora(net, settings)
    assert said[0].startswith(f"14 layers of the backbone have {settings.bits} bits a weight now: ")
    assert is_quantized(net.hf.get_submodule("model.layers.0.mlp.up_proj").get_base_layer())
    train(net)
    sample = draw_starter_sample(net)
    wanted = score_sample(net, sample)
    assert measure_difference(unquantized, wanted) > 0.05
    allowed = EIGHT if settings.bits == 8 else 1e-5 if dtype == "float32" else 0.02
    with merging(net, dtype=torch.float32 if dtype == "float32" else None):
        merged = score_sample(net, sample)
    assert measure_difference(merged, wanted) <= allowed
    folder = save_adapter(net, tmp_path / "adapter")
    told = json.loads((folder / "plaudit.json").read_text())["quantized"]
    assert told["bits"] == settings.bits and told["compute"] == dtype
    again = RewardModel.load(folder, dtype=dtype)
    assert any(f"{settings.bits} bits leave of it" in note for note in again.notes)
    assert measure_difference(score_sample(again, sample), wanted) <= allowed
    report = prove_folder(folder, sample, wanted)
    assert report.way == "peft" and asked[-1]["quantized"] == told and report.difference <= 0.1


@needs_bits
@pytest.mark.filterwarnings("ignore")
def test_what_is_said_of_a_layer_is_enough_to_make_it_again(tiny_reward: Path) -> None:
    net = RewardModel.load(tiny_reward, dtype="bfloat16")
    attach_lora(net, LoraSettings(bits=4, double_quant=True, quant_storage="bfloat16"))
    layer = net.hf.get_submodule("model.layers.1.self_attn.q_proj").get_base_layer()
    assert describe_bits(layer, net.dtype) == {
        "bits": 4, "quant_type": "nf4", "double_quant": True, "quant_storage": "bfloat16", "compute": "bfloat16"
    }  # fmt: skip
