"""lora.py: adapters in a net, saved with the head, merged for a while; the same scores everywhere."""

from __future__ import annotations

import json
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit import witness
from plaudit.errors import ConfigError, ModelError
from plaudit.lora import LoraSettings, adapter_weights, attach_lora, is_adapted, merging, save_adapter
from plaudit.model import RewardNet
from plaudit.pack import Pack, PackSettings, build_packs
from tiny import CASES, FAMILIES, make_tokenizer, save_model, widen

RANK4 = LoraSettings(rank=4)
BF16 = 0.05
"""How far a bf16 net with an adapter may be from its merged folder in bf16; wide random weights show the worst."""


def pack_of(case: str = "together") -> Pack:
    [pack] = build_packs(CASES[case](), PackSettings(budget=20_000))
    return pack


def scores_of(net: RewardNet, pack: Pack | None = None) -> torch.Tensor:
    with torch.inference_mode():
        return net(pack or pack_of())


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def load(folder: Path, dtype: str = "float32", **asked: Any) -> RewardNet:
    return RewardNet.load(folder, dtype=dtype, device="cpu", **asked)


def teach(net: RewardNet, seed: int = 1) -> None:
    """Adapters and a head as training could leave them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in net.hf.named_parameters():
            if ".lora_B." in name:
                x.copy_(torch.randn(x.shape, generator=generator) * 0.1)
        net.head.weight.copy_(torch.randn(net.head.weight.shape, generator=generator) * 0.2)
    net.is_new = False


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A family's language model, in float32; an encoder's with its head."""
    root = tmp_path_factory.mktemp("bases")

    @cache
    def make(family: str = "llama") -> Path:
        return save_model(root / family, family, kind="lm" if family != "modernbert" else "classifier")

    return make


def adapted(base: Path, settings: LoraSettings = RANK4, dtype: str = "float32") -> RewardNet:
    torch.manual_seed(0)
    net = load(base, dtype, new_head=True)
    attach_lora(net, settings)
    teach(net)
    return net


class TestAttaching:
    def test_a_new_adapter_changes_no_score(self, base_of: Callable[..., Path]) -> None:
        net = load(base_of(), new_head=True)
        widen(net.head)
        before = scores_of(net)
        said = attach_lora(net, RANK4)
        assert torch.equal(scores_of(net), before) and before.abs().max() > 0.05
        kinds = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
        assert said == [
            f"LoRA of rank 4 on 14 layers ({kinds}): 3,744 weights are trained, the head's among them",
        ]

    def test_adapters_and_head_are_trained_and_nothing_else(self, base_of: Callable[..., Path]) -> None:
        net = load(base_of(), new_head=True)
        attach_lora(net, RANK4)
        trained = {name for name, x in net.hf.named_parameters() if x.requires_grad}
        assert "score.weight" in trained
        assert all(".lora_A." in name or ".lora_B." in name for name in trained - {"score.weight"})
        before = {name: x.detach().clone() for name, x in net.hf.named_parameters()}
        optimizer = torch.optim.AdamW([x for x in net.hf.parameters() if x.requires_grad], lr=1e-2)
        for _ in range(2):  # B is zero at first, so A moves with the second step
            net(pack_of()).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved = {name for name, x in net.hf.named_parameters() if not torch.equal(x, before[name])}
        assert moved == trained

    def test_weights_of_an_adapter_have_the_nets_precision(self, base_of: Callable[..., Path]) -> None:
        net = adapted(base_of(), dtype="bfloat16")
        assert {x.dtype for n, x in net.hf.named_parameters() if ".lora_" in n} == {torch.bfloat16}
        assert net.head.weight.dtype == torch.float32 and net.dtype == torch.bfloat16

    def test_gradients_through_the_tree_are_those_of_one_row_at_a_time(self, base_of: Callable[..., Path]) -> None:
        net, pack = adapted(base_of()), pack_of("five")
        net(pack).square().sum().backward()
        packed = {name: x.grad.clone() for name, x in net.hf.named_parameters() if x.grad is not None}
        net.zero_grad()
        with net.plain_attention() as hf:
            for at in range(len(pack.members_L)):
                row = torch.from_numpy(pack.tree.sequence(at).astype(np.int64))[None]
                hf(input_ids=row).logits[0, 0].square().backward()
        alone = {name: x.grad for name, x in net.hf.named_parameters() if x.grad is not None}
        assert packed.keys() == alone.keys() and len(alone) == 29
        worst = max(alone, key=lambda name: difference(packed[name], alone[name]))
        assert difference(packed[worst], alone[worst]) <= 2e-5, worst

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                LoraSettings(targets=["qproj"]),
                r"lora.targets 'qproj' matches nothing; the linear layers here are down_",
            ),
            (
                LoraSettings(targets=["q_proj", "proj"]),
                r"lora.targets 'proj' matches nothing.*all-linear stands for all",
            ),
            (LoraSettings(targets=["score"]), r"lora.targets 'score' matches only what is trained whole"),
            (LoraSettings(targets=["input_layernorm"]), r"matches only what is trained whole or is no linear layer"),
            (LoraSettings(targets=[]), r"lora.targets \(none\) matches nothing; linear layers here are down_proj"),
            (LoraSettings(rank=0), r"lora.rank=0 came, at least 1 was needed"),
            (LoraSettings(modules_to_save=["lm_head"]), r"lora.modules_to_save 'lm_head' matches nothing in LlamaFor"),
            (
                LoraSettings(target_parameters=["experts.w"]),
                r"'experts.w' matches nothing; bare matrices here are none",
            ),
            (LoraSettings(bits=3), r"lora.bits=3 came, 4 or 8 was needed"),
        ],
    )
    def test_what_is_not_there_is_refused_and_named(
        self, settings: LoraSettings, message: str, base_of: Callable[..., Path]
    ) -> None:
        net = load(base_of(), new_head=True)
        with pytest.raises(ConfigError, match=message):
            attach_lora(net, settings)
        assert not is_adapted(net) and all(x.requires_grad for x in net.hf.parameters())

    def test_a_second_adapter_is_refused(self, base_of: Callable[..., Path]) -> None:
        net = adapted(base_of())
        with pytest.raises(ConfigError, match="has adapters already; save it merged"):
            attach_lora(net, RANK4)

    def test_what_peft_refuses_is_a_sentence(self, base_of: Callable[..., Path]) -> None:
        net = load(base_of(), new_head=True)
        with pytest.raises(
            ConfigError, match=r"peft cannot put these adapters into LlamaFor.*choose other lora.targets"
        ):
            attach_lora(net, LoraSettings(dora=True, targets=["q_proj"], target_parameters=["q_proj.weight"]))

    def test_targets_are_layers_by_the_end_of_their_name(self, base_of: Callable[..., Path]) -> None:
        net = load(base_of(), new_head=True)
        attach_lora(net, LoraSettings(rank=2, targets=["q_proj", "layers.1.mlp.up_proj", "embed_tokens"]))
        there = {name.partition(".lora_")[0] for name, x in net.hf.named_parameters() if ".lora_" in name}
        wanted = {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
        assert there == wanted | {"model.embed_tokens"}

    def test_an_encoders_head_gets_no_adapter_though_a_layer_ends_alike(self, base_of: Callable[..., Path]) -> None:
        import transformers

        net = load(base_of("modernbert"))
        net.hf = transformers.RobertaForSequenceClassification(
            transformers.RobertaConfig(
                vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=1
            )
        )
        attach_lora(net, RANK4)
        with_adapter = {n.partition(".lora_")[0] for n, _ in net.hf.named_parameters() if ".lora_" in n}
        assert "roberta.encoder.layer.0.output.dense" in with_adapter
        assert not any(name.startswith("classifier") for name in with_adapter)
        assert all(x.requires_grad for x in net.hf.classifier.parameters()), "dense and output are the head together"


def test_an_adapters_files_get_the_mode_that_the_umask_gives(base_of: Callable[..., Path], tmp_path: Path) -> None:
    net = adapted(base_of("llama"))
    before = os.umask(0o022)
    try:
        folder = save_adapter(net, tmp_path / "adapter")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert "adapter_model.safetensors" in modes and set(modes.values()) == {0o644}, modes


class TestEverywhereTheSame:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_in_memory_merged_saved_and_by_a_stranger(
        self, family: str, base_of: Callable[..., Path], tmp_path: Path
    ) -> None:
        net, pack = adapted(base_of(family)), pack_of()
        wanted = scores_of(net, pack)
        with merging(net):
            assert difference(scores_of(net, pack), wanted) <= 1e-5
        folder = save_adapter(net, tmp_path / "adapter")
        assert difference(scores_of(load(folder), pack), wanted) <= 1e-5
        if family == "granite":
            return  # plain transformers has no class for it; the proof uses the generic one
        with merging(net):
            plain = net.save(tmp_path / "plain")
        assert difference(scores_of(load(plain), pack), wanted) <= 1e-5

    @pytest.mark.parametrize(
        "settings",
        [
            replace(RANK4, dora=True),
            replace(RANK4, rslora=True, alpha=8.0),
            replace(RANK4, dropout=0.3),
            replace(RANK4, targets=["q_proj", "embed_tokens"]),
            replace(RANK4, targets=["v_proj"], modules_to_save=["model.norm", "layers.0.mlp"]),
        ],
        ids=["dora", "rslora", "dropout", "embedding", "whole"],
    )
    def test_of_every_kind(self, settings: LoraSettings, base_of: Callable[..., Path], tmp_path: Path) -> None:
        net, pack = adapted(base_of(), settings), pack_of()
        with torch.no_grad():
            for name, x in net.hf.named_parameters():
                if x.requires_grad:
                    x.add_(0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(len(name))))
        wanted = scores_of(net, pack)
        with merging(net):
            assert difference(scores_of(net, pack), wanted) <= 1e-5
        folder = save_adapter(net, tmp_path / "adapter")
        assert difference(scores_of(load(folder), pack), wanted) <= 1e-5
        assert ask_stranger(folder, pack) == pytest.approx(wanted.tolist(), abs=1e-5 * float(wanted.abs().max()))

    def test_transformers_alone_loads_it_too(self, base_of: Callable[..., Path], tmp_path: Path) -> None:
        net, pack = adapted(base_of()), pack_of()
        folder = save_adapter(net, tmp_path / "adapter")
        wanted = scores_of(net, pack)
        assert ask_stranger(folder, pack, way="adapter") == pytest.approx(wanted.tolist(), rel=1e-4)

    def test_in_bfloat16_within_its_rounding(self, base_of: Callable[..., Path], tmp_path: Path) -> None:
        net, pack = adapted(base_of(), dtype="bfloat16"), pack_of()
        wanted = scores_of(net, pack)
        folder = save_adapter(net, tmp_path / "adapter")
        exact = scores_of(load(folder), pack)
        with merging(net, dtype=torch.float32):
            assert difference(scores_of(net, pack), exact) <= 1e-5, (
                "the base as it was trained on, not as its files are"
            )
        with merging(net):
            narrow = scores_of(net, pack)
        for found in (narrow, scores_of(load(folder, "bfloat16"), pack), exact):
            assert difference(found, wanted) <= BF16
        assert ask_stranger(folder, pack, dtype="float32") == pytest.approx(exact.tolist(), rel=1e-4)

    def test_rounding_weights_leaves_the_angles_of_positions_alone(
        self, base_of: Callable[..., Path], tmp_path: Path
    ) -> None:
        net = adapted(base_of())
        folder = save_adapter(net, tmp_path / "adapter")
        wide, narrow = (dict(load(folder, dtype).hf.named_buffers()) for dtype in ("float32", "bfloat16"))
        assert "model.rotary_emb.inv_freq" in wide
        assert all(torch.equal(narrow[name], x) and narrow[name].dtype == x.dtype for name, x in wide.items())

    def test_an_adapter_of_a_reward_model_brings_its_own_head(self, tiny_reward: Path, tmp_path: Path) -> None:
        net = load(tiny_reward)
        before = scores_of(net)
        attach_lora(net, RANK4)
        teach(net)
        wanted = scores_of(net)
        assert difference(wanted, before) > 0.1
        again = load(save_adapter(net, tmp_path / "adapter"))
        assert difference(scores_of(again), wanted) <= 1e-5 and not again.is_new

    def test_experts_can_have_adapters(self, tmp_path: Path) -> None:
        import transformers

        config = transformers.MixtralConfig(
            vocab_size=100, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, num_labels=1, pad_token_id=0,
        )  # fmt: skip
        model = transformers.MixtralForSequenceClassification(config)
        widen(model)
        model.save_pretrained(tmp_path / "base")
        make_tokenizer().save_pretrained(tmp_path / "base")
        net = load(tmp_path / "base")
        said = attach_lora(net, RANK4)
        assert "experts get no adapter; for that: lora.target_parameters=[" in said[1]
        names = said[1].partition("=[")[2].strip("]").split(", ")
        net = load(tmp_path / "base")
        assert len(attach_lora(net, replace(RANK4, target_parameters=names))) == 1
        teach(net)
        wanted = scores_of(net)
        with merging(net):
            assert difference(scores_of(net), wanted) <= 1e-5
        assert difference(scores_of(load(save_adapter(net, tmp_path / "adapter"))), wanted) <= 1e-5


def ask_stranger(folder: Path, pack: Pack, *, way: str = "peft", dtype: str = "auto") -> list[float]:
    """The scores of a pack's rows by transformers and peft, as the witness asks them."""
    card = json.loads((folder / "plaudit.json").read_text())
    question = {
        "folder": str(folder), "rows": [], "ways": [way], "also": [], "dtype": dtype, "device": "cpu",
        "base_dtype": card["base_dtype"],
    }  # fmt: skip
    rows = [[int(i) for i in pack.tree.sequence(at)] for at in range(len(pack.members_L))]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a witness has its own filters
        answer = witness.WAYS[way](question, load(folder).tokenizer, rows)
    if way == "peft":
        assert not any(answer["loading"].values()), answer["loading"]
    found: list[float] = answer["scores"]
    return found


class TestFolder:
    def test_it_is_pefts_own_with_the_head_in_it(self, base_of: Callable[..., Path], tmp_path: Path) -> None:
        folder = save_adapter(adapted(base_of()), tmp_path / "adapter", card={"steps": 7})
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
        assert config["base_model_name_or_path"] == str(base_of()) and config["inference_mode"]
        tensors = load_file(folder / "adapter_model.safetensors")
        assert tensors["base_model.model.score.weight"].shape == (1, 32)
        assert tensors["base_model.model.score.weight"].dtype == torch.float32
        card = json.loads((folder / "plaudit.json").read_text())
        assert (card["steps"], card["base_dtype"], card["score_position"]) == (7, "float32", "last")
        assert "head" not in card
        assert not (folder / "config.json").exists(), "transformers would take it for a whole model"
        assert (folder / "chat_template.jinja").is_file()

    def test_its_base_can_be_named(self, base_of: Callable[..., Path], tmp_path: Path) -> None:
        net = adapted(base_of())
        wanted = scores_of(net)
        (tmp_path / "base").symlink_to(base_of())
        folder = save_adapter(net, tmp_path / "adapter", base="../base")
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "../base"
        assert difference(scores_of(load(folder)), wanted) <= 1e-5
        assert json.loads((save_adapter(net, tmp_path / "hub", base="owner/name") / "plaudit.json").read_text())[
            "base"
        ] == ("owner/name")

    def test_a_new_head_is_said_to_be_new(self, base_of: Callable[..., Path], tmp_path: Path) -> None:
        net = load(base_of(), new_head=True)
        attach_lora(net, RANK4)
        folder = save_adapter(net, tmp_path / "adapter")
        assert json.loads((folder / "plaudit.json").read_text())["head"] == "new" and load(folder).is_new

    def test_a_net_without_adapters_has_none_to_save(self, tiny_reward: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no adapter to save; save the model itself"):
            save_adapter(load(tiny_reward), tmp_path / "adapter")

    def test_a_net_with_adapters_is_not_saved_as_if_it_had_none(
        self, base_of: Callable[..., Path], tmp_path: Path
    ) -> None:
        net = adapted(base_of())
        with pytest.raises(ConfigError, match=r"a model with adapters came.*save it while they are merged"):
            net.save(tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_a_lost_head_is_noticed(self, base_of: Callable[..., Path], tmp_path: Path) -> None:
        folder = save_adapter(adapted(base_of()), tmp_path / "adapter")
        file = folder / "adapter_model.safetensors"
        save_file({name: x for name, x in load_file(file).items() if ".score." not in name}, file)
        with pytest.raises(ModelError, match="its reward head is missing"):
            load(folder)


class TestMerging:
    def test_everything_comes_back_itself(self, base_of: Callable[..., Path]) -> None:
        net = adapted(base_of(), dtype="bfloat16")
        before = {name: (x, x.detach().clone()) for name, x in net.hf.named_parameters()}
        wanted = scores_of(net)
        with merging(net, dtype=torch.float32) as merged:
            assert merged is net and not is_adapted(net) and net.dtype == torch.float32
            assert not any("lora" in name or "base_layer" in name for name, _ in net.hf.named_parameters())
        assert is_adapted(net)
        after = dict(net.hf.named_parameters())
        assert after.keys() == before.keys()
        assert all(after[name] is x and torch.equal(after[name], kept) for name, (x, kept) in before.items())
        assert torch.equal(scores_of(net), wanted)

    def test_also_if_something_fails_inside(self, base_of: Callable[..., Path]) -> None:
        net = adapted(base_of())
        wanted = scores_of(net)
        with pytest.raises(OSError, match="disk"), merging(net):
            raise OSError("disk")
        assert is_adapted(net) and torch.equal(scores_of(net), wanted)

    def test_a_net_without_adapters_stays_as_it_is(self, tiny_reward: Path) -> None:
        net = load(tiny_reward)
        wanted = scores_of(net)
        with merging(net):
            assert torch.equal(scores_of(net), wanted)

    def test_in_bfloat16_small_changes_are_rounded_away_and_in_float32_they_are_not(
        self, base_of: Callable[..., Path]
    ) -> None:
        net = adapted(base_of(), dtype="bfloat16")
        with torch.no_grad():
            for name, x in net.hf.named_parameters():
                if ".lora_B." in name:
                    x.mul_(1e-4)
        layer = net.hf.get_submodule("model.layers.0.self_attn.q_proj")
        base = layer.get_base_layer().weight.clone()
        with merging(net):
            same = net.hf.get_submodule("model.layers.0.self_attn.q_proj").weight == base
            assert same.float().mean() > 0.9
        with merging(net, dtype=torch.float32):
            same = net.hf.get_submodule("model.layers.0.self_attn.q_proj").weight == base
            assert same.float().mean() < 0.1


def test_weights_of_an_adapter_are_named_as_in_its_file(base_of: Callable[..., Path], tmp_path: Path) -> None:
    net = adapted(base_of())
    saved = load_file(save_adapter(net, tmp_path / "adapter") / "adapter_model.safetensors")
    mine = adapter_weights(net)
    assert mine.keys() == saved.keys() and all(torch.equal(mine[name], x) for name, x in saved.items())
