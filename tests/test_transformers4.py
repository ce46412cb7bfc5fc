"""transformers4.py: what transformers 4 reads stands in the folder, and transformers 5 still reads the same.

`make interop` scores such folders under transformers 4 itself; here the places are checked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from plaudit.lora import LoraSettings, attach_lora, save_adapter
from plaudit.score import RewardModel
from plaudit.transformers4 import complete_config, complete_tokenizer_config, find_faults, write_for_transformers_4
from tiny import FAMILIES, make_config, make_tokenizer, save_model

THETA = 5e5
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 20.0, "attention_factor": 0.7},
    "llama3": {
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128,
    },
    "longrope": {
        "factor": 4.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 128,
    },
}  # fmt: skip


def rope(kind: str, **changes: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": THETA, **ROPES[kind], **changes}


def write_config(folder: Path, name: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """A family's configuration as transformers 5 has it, and the file as it is after we completed it."""
    config = make_config(name, **changes)
    config.save_pretrained(folder)
    write_for_transformers_4(folder)
    return config, json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("kind", ROPES)
def test_every_rope_type_stands_where_transformers_4_reads_it(kind: str, tmp_path: Path) -> None:
    config, written = write_config(tmp_path, "llama", rope_parameters=rope(kind))
    assert written["rope_theta"] == THETA
    if kind == "default":
        assert "rope_scaling" not in written
    else:
        assert written["rope_scaling"] == {"rope_type": kind, **ROPES[kind]}
    assert written.get("original_max_position_embeddings") == (128 if kind == "longrope" else None)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters
    assert list(find_faults(tmp_path)) == []


def test_a_factor_that_transformers_4_would_compute_otherwise_becomes_an_attention_factor(tmp_path: Path) -> None:
    # It takes context (512) / original length (128), whatever the factor says; 1 + ln 8 / ln 128 = 10/7.
    _, written = write_config(tmp_path, "llama", rope_parameters=rope("longrope", factor=8.0))
    assert written["rope_scaling"]["attention_factor"] == pytest.approx((10 / 7) ** 0.5)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters["factor"] == 8.0


@pytest.mark.parametrize("kind", ["default", "linear", "yarn", "llama3"])
def test_parameters_by_layer_type(kind: str, tmp_path: Path) -> None:
    local = {"rope_type": "default", "rope_theta": 777.0}
    both = {"full_attention": rope(kind), "sliding_attention": local}
    config, written = write_config(tmp_path, "gemma3", rope_parameters=both)
    assert (written["rope_theta"], written["rope_local_base_freq"]) == (THETA, 777.0)
    scaling = None if kind == "default" else {"rope_type": kind, **ROPES[kind]}
    assert written.get("rope_scaling") == scaling
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters
    assert list(find_faults(tmp_path)) == []


def test_names_of_a_familys_own(tmp_path: Path) -> None:
    partial = rope("linear", partial_rotary_factor=0.5)
    config, written = write_config(tmp_path / "neox", "gpt_neox", rope_parameters=partial)
    assert (written["rotary_emb_base"], written["rotary_pct"]) == (THETA, 0.5)
    assert AutoConfig.from_pretrained(tmp_path / "neox").rope_parameters == config.rope_parameters
    layers = {"layer_types": None, "num_hidden_layers": 6, "global_attn_every_n_layers": 2}
    bases = {"full_attention": rope("default"), "sliding_attention": rope("default", rope_theta=777.0)}
    config, written = write_config(tmp_path / "bert", "modernbert", rope_parameters=bases, **layers)
    assert (written["global_rope_theta"], written["local_rope_theta"]) == (THETA, 777.0)
    assert written["global_attn_every_n_layers"] == 2
    read = AutoConfig.from_pretrained(tmp_path / "bert")
    assert (read.rope_parameters, read.layer_types) == (config.rope_parameters, config.layer_types)


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_5_reads_the_same_of_every_family(name: str, tmp_path: Path) -> None:
    config, written = write_config(tmp_path, name)
    read = AutoConfig.from_pretrained(tmp_path)
    assert getattr(read, "rope_parameters", None) == getattr(config, "rope_parameters", None)
    if "rope_parameters" in written:
        assert {"rope_theta", "rotary_emb_base", "global_rope_theta"} & written.keys()


def test_the_parts_of_a_composed_configuration() -> None:
    text = {"model_type": "llama", "rope_parameters": rope("linear")}
    written = complete_config({"model_type": "some_vl", "text_config": text})
    assert written["text_config"]["rope_theta"] == THETA and "rope_theta" not in written


def test_what_transformers_4_has_no_place_for_is_named(tmp_path: Path) -> None:
    def faults(**config: Any) -> list[str]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        write_for_transformers_4(tmp_path)
        return list(find_faults(tmp_path))

    by_layer = {"full_attention": rope("default"), "sliding_attention": rope("linear")}
    assert faults(model_type="gemma3_text", rope_parameters=by_layer) == [
        "transformers 4 has no place for the rope_parameters of this gemma3_text"
    ]
    assert "rope_parameters of this newer" in faults(model_type="newer", rope_parameters=by_layer)[0]
    thetas = {"full_attention": rope("default"), "sliding_attention": rope("default", rope_theta=1.0)}
    assert "rope_parameters of this olmo3" in faults(model_type="olmo3", rope_parameters=thetas)[0]
    phi3 = {"model_type": "phi3", "max_position_embeddings": 512}
    assert "rope_parameters of this phi3" in faults(**phi3, rope_parameters=rope("longrope", factor=8.0))[0]
    assert faults(**phi3, rope_parameters=rope("longrope")) == []
    layers = ["sliding_attention", "full_attention"]
    assert "layer_types of this modernbert" in faults(model_type="modernbert", layer_types=layers)[0]
    assert "rope_parameters of this llama" in faults(model_type="llama", rope_parameters=rope("longrope"))[0]


def test_a_folder_that_transformers_5_wrote_alone_has_faults(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    [rotation, words] = list(find_faults(folder))
    assert rotation.startswith("config.json lacks what transformers 4 reads (rope_theta)")
    assert words.startswith("tokenizer_config.json lacks what transformers 4 reads (tokenizer_class)")


def test_the_tokenizers_words(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|user|>", "w9"]})
    tokenizer.save_pretrained(tmp_path)
    write_for_transformers_4(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == ["<|user|>", "w9"] and "extra_special_tokens" not in written
    read, text = AutoTokenizer.from_pretrained(tmp_path), "<|user|> w9 w10 </s>"
    assert read(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert read.all_special_tokens == tokenizer.all_special_tokens
    named = {"tokenizer_class": "LlamaTokenizer", "extra_special_tokens": {"image_token": "<i>"}}
    assert complete_tokenizer_config(named) == named


def test_experts_have_their_older_name() -> None:
    assert complete_config({"model_type": "qwen3_moe", "num_local_experts": 4})["num_experts"] == 4


def test_what_we_save_is_complete(tmp_path: Path) -> None:
    net = RewardModel.load(save_model(tmp_path / "from"), dtype="float32")
    assert list(find_faults(net.save(tmp_path / "model"))) == []
    attach_lora(net, LoraSettings(rank=2))
    assert list(find_faults(save_adapter(net, tmp_path / "adapter"))) == []
