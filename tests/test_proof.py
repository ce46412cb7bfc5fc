"""proof.py and witness.py: a stranger in a fresh process gets the same scores from a folder, or says what is wrong."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from plaudit import proof
from plaudit.errors import ConfigError, InternalError, ModelError
from plaudit.lora import LoraSettings, adapter_weights, attach_lora, save_adapter
from plaudit.proof import (
    ProofReport,
    Witness,
    choose_way,
    compare_tensors,
    make_question,
    measure_difference,
    prove_folder,
)
from plaudit.score import RewardModel
from plaudit.specimen import Sample, draw_starter_sample, score_exactly, score_sample
from plaudit.witness import read_tokens
from speller import make_tokenizer, save_speller
from stranger import ask_nearby
from tiny import save_model, widen


class Proven:
    """A folder, and what it was saved with."""

    def __init__(self, root: Path) -> None:
        net = RewardModel.load(save_speller(root / "from", kind="classifier", context=2048), dtype="float32")
        self.folder = net.save(root / "model")
        self.sample: Sample = draw_starter_sample(net)
        self.scores = score_sample(net, self.sample)
        self.weights = {name: x.detach().clone() for name, x in net.hf.state_dict().items()}
        torch.manual_seed(0)
        attach_lora(net, LoraSettings(rank=2))
        with torch.no_grad():
            for name, x in net.hf.named_parameters():
                if ".lora_B." in name:
                    x.normal_(std=0.1)
        self.adapter = save_adapter(net, root / "adapter")
        self.adapted_scores = score_sample(net, self.sample)
        self.adapter_weights = {name: x.detach().clone() for name, x in adapter_weights(net).items()}

    def prove(self, folder: Path | None = None, **more: Any) -> ProofReport:
        told = {"weights": self.weights} | more
        return prove_folder(folder or self.folder, self.sample, self.scores, **told)

    def prove_adapter(self, folder: Path, **more: Any) -> ProofReport:
        return prove_folder(folder, self.sample, self.adapted_scores, weights=self.adapter_weights, **more)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Proven:
    return Proven(tmp_path_factory.mktemp("proof"))


@pytest.fixture
def copied(proven: Proven, tmp_path: Path) -> Path:
    """A folder of one's own to plant a fault in."""
    return Path(shutil.copytree(proven.folder, tmp_path / "model"))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_tensors(folder: Path, change: Any, name: str = "model.safetensors") -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


def change_pad(folder: Path) -> None:
    """Pad with what ends every conversation."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    change_config(folder, pad_token_id=tokenizer.pad_token_id)


def change_template(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    text = file.read_text()
    assert "</s>" in text
    file.write_text(text.replace("</s>", "\n</s>"))


def lose_head(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("score.weight"))


def change_weight(folder: Path) -> None:
    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][3, 5] += 0.5

    change_tensors(folder, nudge)


class TestInAFreshProcess:
    def test_a_sound_folder_is_proven(self, proven: Proven) -> None:
        report = proven.prove()
        assert report.difference <= 1e-5 and (report.dtype, report.way) == ("float32", "transformers")
        assert (report.equal_tensors, report.num_tensors) == (21, 21)
        assert (report.rows, report.tokens) == (8, proven.sample.num_tokens)
        assert report.sentence().startswith(
            "proven by plain transformers in a fresh process: 21 tensors bit for bit, 8 rows token for token, scores to"
        )
        assert report.versions["torch"] == torch.__version__
        assert json.loads(json.dumps(report.as_json()))["equal_tensors"] == 21

    @pytest.mark.parametrize(
        ("plant", "message"),
        [
            (lose_head, r"a tensor is missing \(score.weight\)"),
            (change_pad, r"its pad token \(3\) ends a conversation, so a score would be read one token too early"),
            (
                change_template,
                r"row 0 of the sample has \d+ tokens where \d+ were scored.*its chat template or its voc",
            ),
            (
                change_weight,
                r"its scores are others: -?[\d.]+ where memory had -?[\d.]+ .* \(and 1 more such findings\)",
            ),
        ],
        ids=["head", "pad", "template", "weight"],
    )
    def test_a_planted_fault_is_caught(self, plant: Any, message: str, proven: Proven, copied: Path) -> None:
        plant(copied)
        with pytest.raises(ModelError, match=rf"the save failed: {message}.*do not use this folder, and save"):
            proven.prove(copied)

    def test_an_adapter_is_proven_by_peft(self, proven: Proven) -> None:
        report = proven.prove_adapter(proven.adapter)
        assert report.way == "peft" and report.difference <= 1e-5 and report.equal_tensors == 29

    def test_a_witness_that_dies_is_a_sentence(self, proven: Proven) -> None:
        question = make_question(proven.folder, proven.sample, ways=["transformers"])
        with (
            Witness() as witness,
            pytest.raises(
                ModelError, match=r"was to load it ended with 1 \(KeyError: 'ways'\); see that there is memory"
            ),
        ):
            witness.ask({key: value for key, value in question.items() if key != "ways"})


class TestTheWitness:
    def test_it_imports_nothing_of_ours(self) -> None:
        tree = ast.parse(Path(proof.__file__).with_name("witness.py").read_text())
        names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not any(name.split(".")[0] == "plaudit" for name in names) and "torch" in names

    def test_one_that_knows_us_is_no_witness(self, proven: Proven, monkeypatch: pytest.MonkeyPatch) -> None:
        ask_nearby(monkeypatch)
        ask = proof.Witness.ask
        monkeypatch.setattr(proof.Witness, "ask", lambda self, q: ask(self, q) | {"plaudit": ["plaudit.model"]})
        with pytest.raises(InternalError, match=r"the witness imported plaudit.model, so it is no stranger"):
            proven.prove()

    def test_it_is_alone_and_asks_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[Mapping[str, Any]] = []
        original = proof.subprocess.Popen

        def start(words: list[str], **options: Any) -> Any:
            started.append({"words": words, **options["env"]})
            return original(["sleep", "60"], **options)

        monkeypatch.setattr(proof.subprocess, "Popen", start)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_FSDP"):
            monkeypatch.setenv(name, "1")
        with Witness() as witness:
            process = witness._process
        assert process.returncode is not None, "one that is not asked does not stay"
        assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_FSDP"} & started[0].keys()
        assert started[0]["HF_HUB_OFFLINE"] == "1" and started[0]["PATH"] == os.environ["PATH"]
        assert started[0]["words"][1] == "-P", "so that our files are not found beside it"

    def test_one_that_says_nothing_in_time_is_left(self, proven: Proven, monkeypatch: pytest.MonkeyPatch) -> None:
        original = proof.subprocess.Popen
        monkeypatch.setattr(proof.subprocess, "Popen", lambda words, **options: original(["sleep", "60"], **options))
        monkeypatch.setattr(proof, "PATIENCE_S", 0.1)
        with Witness() as witness, pytest.raises(ModelError, match="no answer came within 0 s"):
            witness.ask(make_question(proven.folder, proven.sample, ways=[]))

    def test_text_gets_one_eos(self) -> None:
        tokenizer = make_tokenizer(None)
        once = read_tokens(tokenizer, {"text": "abc", "messages": None})
        assert once[-1] == tokenizer.eos_token_id and len(once) == 4
        assert read_tokens(tokenizer, {"text": "abc</s>", "messages": None}) == once
        tokenizer.eos_token = None
        assert len(read_tokens(tokenizer, {"text": "abc", "messages": None})) == 3


@pytest.fixture
def nearby(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    return ask_nearby(monkeypatch)


@pytest.mark.usefixtures("nearby")
class TestFaults:
    def catch(self, proven: Proven, folder: Path, message: str, **more: Any) -> None:
        with pytest.raises(ModelError, match=message):
            proven.prove(folder, **more)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"id2label": {"0": "A", "1": "B"}, "label2id": {"A": 0, "B": 1}}, r"tensor is of another shape \(score"),
            ({"problem_type": None}, "config.json says problem_type None, so servers would squash the score"),
            ({"hidden_size": 16, "head_dim": 8}, "tensors are of another shape"),
            ({"num_hidden_layers": 3}, r"9 tensors are missing \(model.layers.2"),
            ({"num_hidden_layers": 1}, r"9 tensors are left over \(model.layers.1"),
            ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "its scores are others"),
            ({"model_type": "gpt_of_mine"}, "plain transformers cannot load it .*gpt_of_mine"),
            ({"pad_token_id": 9}, "padded in a batch, its scores are others"),
            ({"pad_token_id": None}, "a padded batch fails .*Cannot handle batch sizes > 1"),
        ],
    )
    def test_of_the_configuration(self, changes: dict[str, Any], message: str, proven: Proven, copied: Path) -> None:
        change_config(copied, **changes)
        self.catch(proven, copied, message)

    def test_a_tokenizer_that_is_gone(self, proven: Proven, copied: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (copied / name).unlink()
        self.catch(proven, copied, "the save failed: its tokenizer cannot be used")

    def test_a_weight_too_small_for_the_scores_to_tell(self, proven: Proven, copied: Path) -> None:
        def nudge(tensors: dict[str, torch.Tensor]) -> None:
            x = tensors["model.layers.1.mlp.down_proj.weight"]
            x[0, 0] = torch.nextafter(x[0, 0], torch.tensor(math.inf))

        change_tensors(copied, nudge)
        self.catch(
            proven, copied, r"1 of its tensors are not the ones in memory \(model.layers.1.mlp.down_proj.weight\)"
        )

    def test_a_tensor_that_was_not_written(self, proven: Proven) -> None:
        more = proven.weights | {"model.extra.weight": torch.ones(3)}
        self.catch(proven, proven.folder, r"1 of the tensors in memory are not in it \(model.extra", weights=more)

    def test_a_tensor_of_another_precision(self, proven: Proven) -> None:
        narrow = proven.weights | {"score.weight": proven.weights["score.weight"].bfloat16()}
        self.catch(proven, proven.folder, r"are not the ones in memory \(score.weight\)", weights=narrow)

    def test_scores_that_are_no_numbers(self, proven: Proven, copied: Path) -> None:
        def poison(tensors: dict[str, torch.Tensor]) -> None:
            tensors["model.norm.weight"][0] = math.nan

        change_tensors(copied, poison)
        self.catch(proven, copied, "its scores are others: nan where memory had", weights={})

    def test_an_adapters(self, proven: Proven, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(proven.adapter, tmp_path / "adapter"))
        name, key = "adapter_model.safetensors", "base_model.model.score.weight"
        change_tensors(folder, lambda tensors: tensors.pop(key), name)
        with pytest.raises(ModelError, match=rf"transformers and peft cannot load it \(KeyError: '{key}'\)"):
            proven.prove_adapter(folder)
        shutil.copytree(proven.adapter, folder, dirs_exist_ok=True)
        change_tensors(folder, lambda tensors: tensors.update({"base_model.model.odd.weight": torch.ones(1)}), name)
        with pytest.raises(ModelError, match="a tensor is left over"):
            proven.prove_adapter(folder)
        shutil.copytree(proven.adapter, folder, dirs_exist_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
        with pytest.raises(ModelError, match="its scores are others"):
            proven.prove_adapter(folder)
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone"}))
        with pytest.raises(ModelError, match="transformers and peft cannot load it"):
            proven.prove_adapter(folder)

    def test_the_name_in_an_error_is_the_one_that_was_given(self, proven: Proven, copied: Path) -> None:
        lose_head(copied)
        with pytest.raises(ModelError, match=r"^run/model: the save failed"):
            proven.prove(copied, name="run/model")

    def test_rounding_is_let_pass_where_every_bit_is_the_same(self, proven: Proven) -> None:
        scale = max(map(abs, proven.scores))
        near = [score + 5e-5 * scale for score in proven.scores]
        report = prove_folder(proven.folder, proven.sample, near, weights=proven.weights)
        assert report.tolerance == 1e-4 and 1e-5 < report.difference < 1e-4
        for weights, scores in (({}, near), (proven.weights, [score + 2e-4 * scale for score in near])):
            with pytest.raises(ModelError, match="its scores are others"):
                prove_folder(proven.folder, proven.sample, scores, weights=weights)

    def test_scores_are_of_the_sample(self, proven: Proven) -> None:
        with pytest.raises(ConfigError, match="7 scores came for a sample of 8 rows"):
            prove_folder(proven.folder, proven.sample, proven.scores[:7])


class TestWays:
    def test_a_head_of_another_name_is_loaded_as_openrlhf_does(
        self, proven: Proven, tmp_path: Path, nearby: list[dict[str, Any]]
    ) -> None:
        folder = RewardModel.load(proven.folder, dtype="float32").save(tmp_path / "other", head_prefix="value_head")
        assert choose_way(folder) == "openrlhf"
        report = proven.prove(folder, weights={})
        assert report.way == "openrlhf" and report.difference <= 1e-5 and report.equal_tensors == 0
        assert "bit for bit" not in report.sentence() and "by OpenRLHF's convention" in report.sentence()

    def test_a_narrow_folder_is_compared_in_float32_and_as_it_is_loaded(
        self, proven: Proven, tmp_path: Path, nearby: list[dict[str, Any]]
    ) -> None:
        net = RewardModel.load(proven.folder, dtype="bfloat16")
        folder = net.save(tmp_path / "narrow")
        scores, dtype = score_exactly(net, proven.sample)
        report = prove_folder(folder, proven.sample, scores, dtype=dtype)
        assert report.difference <= 1e-5 < 1e-4 < (report.narrow_difference or 0) < 0.1
        assert len(report.as_loaded) == 8 and "at its own precision" in report.sentence()
        assert "as_loaded" not in report.as_json()
        by_itself = prove_folder(folder, proven.sample, score_sample(net, proven.sample))
        assert by_itself.dtype == "bfloat16" and by_itself.tolerance == 0.1 and by_itself.narrow_difference is None

    def test_out_of_memory_on_a_device_is_asked_again_on_the_cpu(
        self, proven: Proven, monkeypatch: pytest.MonkeyPatch, nearby: list[dict[str, Any]]
    ) -> None:
        ask = proof.Witness.ask

        def refuse(self: Any, question: Any) -> Any:
            if question["device"] == "cpu":
                return ask(self, question)
            return {"ids": [], "ways": {"transformers": {"error": "OutOfMemoryError: CUDA out of memory"}}}

        monkeypatch.setattr(proof.Witness, "ask", refuse)
        assert proven.prove(device="cuda:0").device == "cpu"

    def test_a_family_without_a_class_is_proven_with_the_generic_one(
        self, tmp_path: Path, nearby: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = RewardModel.load(save_model(tmp_path / "lm", "granite", kind="lm"), dtype="float32", new_head=True)
        widen(net.hf)
        sample = draw_starter_sample(net)
        folder, scores = net.save(tmp_path / "model"), score_sample(net, sample)
        # In this process plaudit has registered the class; a fresh one knows of none.
        monkeypatch.delitem(AutoModelForSequenceClassification._model_mapping._extra_content, type(net.hf.config))
        report = prove_folder(folder, sample, scores)
        assert report.notes == ("transformers ships no such class: its generic one was used",)


def test_differences_are_relative_to_the_largest_score() -> None:
    assert measure_difference([1.0, -4.1], [1.0, -4.0]) == pytest.approx(0.025)
    assert measure_difference([0.5], [0.4], scale=10.0) == pytest.approx(0.01)
    assert measure_difference([0.0, 0.0], [0.0, 0.0]) == measure_difference([], []) == 0.0
    assert measure_difference([1e-9], [0.0], scale=1.0) == 1e-9
    assert measure_difference([math.nan], [1.0]) == measure_difference([1.0], [math.inf]) == math.inf


def test_tensors_are_compared_by_name_and_bits(proven: Proven) -> None:
    assert compare_tensors(proven.folder, proven.weights) == (21, 21, [])
    assert compare_tensors(proven.folder, {}) == (0, 21, [])
    tied = proven.weights | {"also": proven.weights["score.weight"]}
    assert compare_tensors(proven.folder, tied)[2] == [], "one that is written once under another name"


def test_a_sample_can_be_made_by_hand(proven: Proven) -> None:
    rows = tuple(replace(row) for row in proven.sample.rows[:2])
    question = make_question(proven.folder, Sample(rows=rows), ways=["transformers"], also=())
    assert [list(row) for row in question["rows"]] == [["messages", "text"]] * 2
