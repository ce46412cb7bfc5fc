"""loading.py: every layout that is read, against its maker's own forward; every other folder, in a sentence."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from plaudit.checkpoint import CARD
from plaudit.errors import ConfigError, ModelError
from plaudit.loading import linear_head
from plaudit.model import RewardNet
from plaudit.pack import PackSettings, build_packs
from plaudit.score import Scorer
from tiny import SIZES, random_row, save_model, widen

ROWS = [random_row(np.random.default_rng(n), 20 + n) for n in range(3)]
HIDDEN = SIZES["hidden_size"]


@pytest.fixture(scope="session")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model as TRL saves it."""
    return save_model(tmp_path_factory.mktemp("loading") / "reward")


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model."""
    return save_model(tmp_path_factory.mktemp("loading") / "language", kind="lm", seed=1)


@pytest.fixture
def copy(reward: Path, tmp_path: Path) -> Path:
    """The reward model's folder, to be spoiled."""
    return Path(shutil.copytree(reward, tmp_path / "copy"))


def load(folder: Path, **asked: Any) -> RewardNet:
    return RewardNet.load(folder, **{"dtype": "float32", "device": "cpu", **asked})


def score(net: RewardNet) -> Tensor:
    [pack] = build_packs([ROWS], PackSettings(budget=512))
    with torch.inference_mode():
        by_member = dict(zip(pack.members_L, net(pack), strict=True))
    return torch.stack([by_member[0, k] for k in range(len(ROWS))])


def score_alone(model: Any) -> Tensor:
    with torch.inference_mode():
        rows = [torch.from_numpy(row.astype(np.int64))[None] for row in ROWS]
        return torch.stack([model(input_ids=row).logits[0, 0] for row in rows])


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """The same weights from different files: where they lie in memory decides the last bit of a product."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def refusal(folder: Path, **asked: Any) -> str:
    """The sentence that a folder is refused with: one line that names the folder and says what to do."""
    with pytest.raises(ModelError) as caught:
        load(folder, **asked)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 600
    assert str(folder) in sentence or str(folder.resolve()) in sentence
    return sentence


def edit_config(folder: Path, *without: str, **changes: Any) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if key not in without}))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def rename(old: str, new: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


class TestLayouts:
    def test_trl(self, reward: Path) -> None:
        net = load(reward)
        assert (net.is_new, net.notes) == (False, [])
        twin = AutoModelForSequenceClassification.from_pretrained(reward)
        assert_same(score(net), score_alone(twin))

    @pytest.mark.parametrize("prefix", ["score", "value_head"])
    def test_openrlhf(self, prefix: str, reward: Path, copy: Path) -> None:
        edit_tensors(copy, rename("score.weight", f"{prefix}.weight"))
        edit_config(
            copy,
            *("num_labels", "id2label", "label2id", "problem_type"),
            architectures=["RewardModel"],
            value_head_prefix=prefix,
            mean=0.25,
            std=1.5,
        )
        net = load(copy)
        assert_same(score(net), score(load(reward)))
        [raw, position] = net.notes
        assert raw == "scores are raw; the checkpoint's normalisation (mean 0.25, std 1.5) is not applied"
        assert position.startswith(
            "the folder has OpenRLHF's layout, so the score is read as OpenRLHF reads it: at EOS"
        )
        assert (net.checkpoint.mean, net.checkpoint.std) == (0.25, 1.5)

    def test_openrlhf_with_half_a_normalisation(self, copy: Path) -> None:
        edit_config(copy, value_head_prefix="score", std=1.5)
        assert "mean None, std 1.5" in load(copy).notes[0]

    def test_a_head_whose_prefix_the_configuration_does_not_name(self, reward: Path, copy: Path) -> None:
        edit_tensors(copy, rename("score.weight", "value_head.weight"))
        assert_same(score(load(copy)), score(load(reward)))

    def test_shards(self, reward: Path, tmp_path: Path) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(reward)
        model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
        for file in reward.glob("tokenizer*"):
            shutil.copy(file, tmp_path / "shards")
        assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
        assert_same(score(load(tmp_path / "shards")), score(load(reward)))

    def test_the_head_keeps_its_precision_beside_a_bf16_backbone(self, reward: Path, tmp_path: Path) -> None:
        exact = load_file(reward / "model.safetensors")["score.weight"]
        net = load(reward, dtype="bfloat16")
        assert net.dtype is torch.bfloat16
        assert torch.equal(net.head.weight, exact)
        saved = load_file(net.save(tmp_path / "saved") / "model.safetensors")
        assert torch.equal(saved["score.weight"], exact)
        assert {x.dtype for name, x in saved.items() if name != "score.weight"} == {torch.bfloat16}
        again = load(tmp_path / "saved", dtype="bfloat16")
        assert torch.equal(again.head.weight, exact)
        assert torch.equal(score(again), score(net))


class TestWhichWeights:
    """The weights that were checked are those that transformers and peft load."""

    def test_a_stray_file_does_not_replace_the_head(self, reward: Path, copy: Path) -> None:
        head = load_file(copy / "model.safetensors")["score.weight"]
        save_file({"score.weight": -2 * head}, copy / "old_head.safetensors", metadata={"format": "pt"})
        net = load(copy)
        assert_same(score(net), score_alone(AutoModelForSequenceClassification.from_pretrained(reward)))
        assert "copy: old_head.safetensors ignored; the weights are read from model.safetensors" in net.notes[0]

    def test_an_adapters_pickle_is_never_opened(
        self, language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = tmp_path / "adapter"
        make_adapter(language, adapter, modules_to_save=["score"])
        weights = load_file(adapter / "adapter_model.safetensors")
        torch.save(weights, adapter / "adapter_model.bin")
        (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
        monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("a pickle was opened"))
        assert "expected adapter_model.safetensors, got other.safetensors" in refusal(adapter)

    def test_a_base_that_is_an_adapter_itself_is_refused(self, language: Path, reward: Path, tmp_path: Path) -> None:
        # transformers would load the adapter in it too, from a pickle if that is all there is.
        base = Path(shutil.copytree(reward, tmp_path / "base"))
        make_adapter(reward, tmp_path / "outer", modules_to_save=None)
        shutil.copy(tmp_path / "outer" / "adapter_config.json", base)
        name_base(tmp_path / "outer", base)
        assert "expected a whole model as its base" in refusal(tmp_path / "outer")

    @pytest.mark.parametrize("name", ["variant", "use_safetensors", "subfolder", "state_dict", "gguf_file"])
    def test_model_args_cannot_name_other_files(self, name: str, reward: Path) -> None:
        with pytest.raises(ConfigError, match=f"model_args.{name}"):
            load(reward, model_args={name: False})


class TestRefusals:
    def test_a_language_model(self, language: Path) -> None:
        sentence = refusal(language)
        assert "a language model came (LlamaForCausalLM), a reward model was needed" in sentence
        assert "plaudit train" in sentence

    def test_a_missing_head(self, copy: Path) -> None:
        edit_tensors(copy, lambda tensors: tensors.pop("score.weight"))
        assert "its reward head is missing" in refusal(copy)

    @pytest.mark.parametrize("name", ["value_head.weight", "lm_head.weight", "embed_out.weight"])
    def test_an_extra_head(self, name: str, copy: Path) -> None:
        edit_tensors(copy, lambda tensors: tensors.update({name: torch.zeros(1, HIDDEN)}))
        assert f"two heads came (score.weight and {name})" in refusal(copy)

    def test_two_labels(self, tmp_path: Path) -> None:
        sentence = refusal(save_model(tmp_path / "two", num_labels=2))
        assert "a head with 2 labels came (score.weight), one with 1 was needed" in sentence

    def test_a_head_of_another_width(self, copy: Path) -> None:
        edit_tensors(copy, lambda tensors: tensors.update({"score.weight": torch.zeros(1, HIDDEN + 1)}))
        assert "1 tensor is of another shape for LlamaForSequenceClassification (score.weight)" in refusal(copy)
        edit_tensors(copy, rename("score.weight", "value_head.weight"))
        assert f"a head of shape (1, {HIDDEN + 1}) without a bias came (value_head.weight)" in refusal(copy)

    def test_a_head_with_a_bias_that_the_architecture_has_no_place_for(self, copy: Path) -> None:
        edit_tensors(copy, lambda tensors: tensors.update({"score.bias": torch.ones(1)}))
        assert f"a head of shape (1, {HIDDEN}) with a bias came" in refusal(copy)

    def test_a_missing_tensor(self, copy: Path) -> None:
        edit_tensors(copy, lambda tensors: tensors.pop("model.norm.weight"))
        assert "1 tensor is missing for LlamaForSequenceClassification (model.norm.weight)" in refusal(copy)

    def test_left_over_tensors(self, copy: Path) -> None:
        more = {f"model.layers.0.mlp.extra_{n}.weight": torch.zeros(1) for n in range(2)}
        edit_tensors(copy, lambda tensors: tensors.update(more))
        assert "2 tensors are left over for LlamaForSequenceClassification (model.layers.0.mlp.extra" in refusal(copy)

    def test_tensors_of_another_shape(self, copy: Path) -> None:
        edit_config(copy, intermediate_size=64)
        assert "6 tensors are of another shape for LlamaForSequenceClassification" in refusal(copy)

    def test_an_architecture_that_transformers_does_not_know(self, copy: Path) -> None:
        edit_config(copy, model_type="no_such_model")
        assert "no_such_model" in refusal(copy)

    def test_a_missing_shard(self, reward: Path, tmp_path: Path) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(reward)
        model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
        for file in reward.glob("tokenizer*"):
            shutil.copy(file, tmp_path / "shards")
        sorted((tmp_path / "shards").glob("*.safetensors"))[0].unlink()
        assert "model-00001-of-00004.safetensors, which is missing" in refusal(tmp_path / "shards")

    @pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_neox"])
    @pytest.mark.parametrize("left", [(), ("tokenizer_config.json",)])
    def test_a_missing_tokenizer(self, family: str, left: tuple[str, ...], tmp_path: Path) -> None:
        # For some of these transformers makes a tokenizer out of nothing, in silence.
        folder = save_model(tmp_path / family, family)
        for file in folder.glob("tokenizer*"):
            if file.name not in left:
                file.unlink()
        assert "its tokenizer is missing (no tokenizer.json there)" in refusal(folder)

    def test_a_broken_tokenizer(self, copy: Path) -> None:
        (copy / "tokenizer.json").write_text("{")
        assert "its tokenizer cannot be loaded" in refusal(copy)

    def test_a_configuration_without_a_model_type(self, copy: Path) -> None:
        edit_config(copy, "model_type", "architectures")
        refusal(copy)

    def test_a_configuration_whose_values_are_of_the_wrong_kind(self, copy: Path) -> None:
        edit_config(copy, hidden_size="many")
        assert "Field 'hidden_size' expected int, got str" in refusal(copy)


class TestNewHead:
    def test_it_has_the_promised_scale_and_is_drawn_from_the_seed(self, language: Path) -> None:
        heads = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            net = load(language, new_head=True)
            assert net.is_new
            heads.append(net.head.weight.detach())
        assert torch.equal(heads[0], heads[1])
        assert not torch.equal(heads[0], heads[2])
        assert heads[0].shape == (1, HIDDEN)
        torch.manual_seed(0)
        drawn = torch.cat([load(language, new_head=True).head.weight.detach() for _ in range(8)])
        assert drawn.std().item() == pytest.approx(1 / (HIDDEN + 1), rel=0.15)
        assert abs(drawn.mean().item()) < 0.2 / (HIDDEN + 1)

    def test_it_is_said_and_scoring_with_it_is_refused(self, language: Path) -> None:
        net = load(language, new_head=True)
        assert net.notes == [
            f"language had no reward head: a new one was made (normal, std 1/{HIDDEN + 1}); it has to be trained"
        ]
        with pytest.raises(ModelError, match="its reward head is new and untrained, so its scores would be noise"):
            Scorer(net)

    def test_saving_does_not_make_it_trained(self, language: Path, tmp_path: Path) -> None:
        net = load(language, new_head=True)
        saved = load(net.save(tmp_path / "new"))
        assert saved.is_new
        assert saved.notes == ["new was saved with a new head that nobody has trained; it has to be trained"]
        assert torch.equal(saved.head.weight, net.head.weight)
        with pytest.raises(ModelError, match="new and untrained"):
            Scorer(saved)
        again = load(saved.save(tmp_path / "again"), new_head=True)
        assert again.is_new
        assert torch.equal(again.head.weight, net.head.weight)
        again.is_new = False  # what training says
        trained = load(again.save(tmp_path / "trained"))
        assert not trained.is_new
        assert "head" not in json.loads((tmp_path / "trained" / CARD).read_text())
        Scorer(trained)

    def test_a_head_that_is_there_is_kept(self, reward: Path) -> None:
        net = load(reward, new_head=True)
        assert not net.is_new
        assert torch.equal(score(net), score(load(reward)))

    @pytest.mark.parametrize("family", ["gpt_neox", "gemma3", "granite", "modernbert"])
    def test_other_families(self, family: str, tmp_path: Path) -> None:
        if family == "modernbert":
            from transformers import AutoModelForMaskedLM

            folder = save_model(tmp_path / "lm", "modernbert")
            AutoModelForMaskedLM.from_config(load(folder).hf.config).save_pretrained(folder)
        else:
            folder = save_model(tmp_path / "lm", family, kind="lm")
        net = load(folder, new_head=True)
        assert net.is_new
        assert net.head.weight.std().item() == pytest.approx(1 / (HIDDEN + 1), rel=0.5)
        trained = load(net.save(tmp_path / "saved"))
        assert_same(score(trained), score(net))


def make_adapter(base: Path, folder: Path, **settings: Any) -> Any:
    """A LoRA folder on the base, its matrices far from zero; gives back the model as peft has it."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=settings.pop("num_labels", 1))
    defaults = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "up_proj"], "lora_dropout": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that is on its way out
        adapted = get_peft_model(model, LoraConfig(**{**defaults, **settings}))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    adapted.save_pretrained(folder)
    return adapted.eval()


class TestAdapters:
    @pytest.mark.parametrize("task", ["SEQ_CLS", "CAUSAL_LM", None])
    def test_a_head_in_the_adapter_on_a_language_model(self, task: str | None, language: Path, tmp_path: Path) -> None:
        twin = make_adapter(language, tmp_path / "adapter", task_type="SEQ_CLS", modules_to_save=["score"])
        edited = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**edited, "task_type": task}))
        net = load(tmp_path / "adapter")
        assert not net.is_new
        assert net.notes == ["LoRA adapter adapter was merged into language in float32"]
        assert_same(score(net), score_alone(twin))

    def test_a_head_in_the_adapter_replaces_the_bases(self, reward: Path, tmp_path: Path) -> None:
        twin = make_adapter(reward, tmp_path / "adapter", modules_to_save=["score"])
        net = load(tmp_path / "adapter")
        assert_same(score(net), score_alone(twin))
        assert not torch.equal(net.head.weight, load(reward).head.weight)

    def test_a_base_with_a_head_needs_none_in_the_adapter(self, reward: Path, tmp_path: Path) -> None:
        twin = make_adapter(reward, tmp_path / "adapter")
        net = load(tmp_path / "adapter")
        assert_same(score(net), score_alone(twin))
        assert torch.equal(net.head.weight, load(reward).head.weight)

    def test_merging_is_rounded_once_and_the_head_never(self, reward: Path, tmp_path: Path) -> None:
        make_adapter(reward, tmp_path / "adapter", modules_to_save=["score"])
        exact, rounded = load(tmp_path / "adapter"), load(tmp_path / "adapter", dtype="bfloat16")
        assert rounded.dtype is torch.bfloat16
        assert torch.equal(rounded.head.weight, exact.head.weight)
        for (name, a), b in zip(rounded.backbone.named_parameters(), exact.backbone.parameters(), strict=True):
            assert torch.equal(a, b.bfloat16()), name

    def test_saving_gives_a_plain_folder_with_the_same_scores(self, language: Path, tmp_path: Path) -> None:
        make_adapter(language, tmp_path / "adapter", modules_to_save=["score"])
        net = load(tmp_path / "adapter")
        merged = AutoModelForSequenceClassification.from_pretrained(net.save(tmp_path / "merged"))
        assert_same(score_alone(merged), score(net))

    def test_a_head_nowhere_is_refused_unless_a_new_one_is_asked_for(self, language: Path, tmp_path: Path) -> None:
        make_adapter(language, tmp_path / "adapter")
        assert "neither the adapter nor its base" in refusal(tmp_path / "adapter")
        torch.manual_seed(3)
        net = load(tmp_path / "adapter", new_head=True)
        assert net.is_new
        assert net.head.weight.std().item() == pytest.approx(1 / (HIDDEN + 1), rel=0.5)
        assert any("a new one was made" in note for note in net.notes)

    def test_an_untrained_head_of_the_base_stays_untrained(self, language: Path, tmp_path: Path) -> None:
        base = load(language, new_head=True).save(tmp_path / "base")
        make_adapter(base, tmp_path / "bare")
        make_adapter(base, tmp_path / "whole", modules_to_save=["score"])
        assert load(tmp_path / "bare").is_new
        assert not load(tmp_path / "whole").is_new

    def test_a_two_label_head_is_refused(self, language: Path, tmp_path: Path) -> None:
        make_adapter(language, tmp_path / "adapter", modules_to_save=["score"], num_labels=2)
        assert "a head with 2 labels came (base_model.model.score.weight)" in refusal(tmp_path / "adapter")

    def test_a_base_of_another_width_is_refused(self, language: Path, tmp_path: Path) -> None:
        make_adapter(language, tmp_path / "adapter", modules_to_save=["score"])
        other = save_model(tmp_path / "other", hidden_size=64)
        name_base(tmp_path / "adapter", other)
        assert "size mismatch" in refusal(tmp_path / "adapter")

    def test_a_base_with_fewer_layers_is_refused(self, language: Path, tmp_path: Path) -> None:
        make_adapter(language, tmp_path / "adapter", modules_to_save=["score"])
        name_base(tmp_path / "adapter", save_model(tmp_path / "other", num_hidden_layers=1))
        assert "of the adapter and its base do not meet" in refusal(tmp_path / "adapter")

    def test_a_base_that_is_not_there_is_refused(self, language: Path, tmp_path: Path) -> None:
        make_adapter(language, tmp_path / "adapter", modules_to_save=["score"])
        name_base(tmp_path / "adapter", tmp_path / "gone")
        with pytest.raises(ModelError, match="gone is not there"):
            load(tmp_path / "adapter")

    def test_a_base_beside_the_adapter_is_found(self, language: Path, tmp_path: Path) -> None:
        twin = make_adapter(language, tmp_path / "adapter", modules_to_save=["score"])
        shutil.copytree(language, tmp_path / "base")
        name_base(tmp_path / "adapter", Path("../base"))
        assert_same(score(load(tmp_path / "adapter")), score_alone(twin))


def name_base(adapter: Path, base: Path) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(base)}))


def test_reloading_in_the_same_process_leaves_transformers_as_it_was(language: Path) -> None:
    from transformers.utils import logging as hf_logging

    before = (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled())
    load(language, new_head=True)
    with pytest.raises(ModelError):
        load(language)
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before


def test_a_bar_that_was_off_stays_off(language: Path) -> None:
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    try:
        load(language, new_head=True)
        assert not hf_logging.is_progress_bar_enabled()
    finally:
        hf_logging.enable_progress_bar()


def test_a_head_where_nobody_looks_for_it_is_a_sentence() -> None:
    with pytest.raises(ModelError, match="Identity keeps its head where it was not looked for; save the model as"):
        linear_head(torch.nn.Identity())


def test_weights_are_drawn_wide_enough_to_tell_models_apart(reward: Path) -> None:
    twin = AutoModelForSequenceClassification.from_pretrained(reward)
    before = score_alone(twin)
    widen(twin, seed=5)
    assert (score_alone(twin) - before).abs().max() > 0.1
