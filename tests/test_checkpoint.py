"""checkpoint.py: a folder's headers, read without its weights; each broken folder is a sentence that names the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from plaudit.checkpoint import CARD, HEADS, Checkpoint, Head, check_head, read_adapter, read_checkpoint, read_tensors
from plaudit.errors import ModelError

CONFIG = {"architectures": ["LlamaForSequenceClassification"], "hidden_size": 4}


def write_folder(folder: Path, config: object = CONFIG, /, *, file: str = "model.safetensors", **shapes: Any) -> Path:
    """A model folder of zeros; a name's dots are written as two underscores."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def write_header(file: Path, header: object, *, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def write_index(folder: Path, shards: dict[str, int | str]) -> Path:
    """The index of a model in shards: each tensor's shard, by number or by file name."""
    files = {
        name: shard if isinstance(shard, str) else f"model-{shard:05d}-of-00002.safetensors"
        for name, shard in shards.items()
    }
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return file


def refusal(folder: Path) -> str:
    """The one line that a folder is refused with, by reading or by looking at its head."""
    with pytest.raises(ModelError) as caught:
        check_head(read_checkpoint(folder))
    sentence = str(caught.value)
    assert "\n" not in sentence and str(folder) in sentence
    return sentence


class TestHeads:
    @pytest.mark.parametrize("head", HEADS)
    def test_each_layouts_head_is_found(self, head: str, tmp_path: Path) -> None:
        found = read_checkpoint(write_folder(tmp_path, model__norm__weight=4, **{head.replace(".", "__"): (1, 4)}))
        assert (found.head, found.head_rows) == (head, 1)
        assert (found.architecture, found.folder, found.is_untrained) == (CONFIG["architectures"][0], tmp_path, False)
        assert (found.mean, found.std, found.card) == (None, None, {})
        check_head(found)

    def test_openrlhfs_name_of_it_comes_first(self, tmp_path: Path) -> None:
        config = CONFIG | {"value_head_prefix": "my_head", "mean": 0.5, "std": 2.0}
        found = read_checkpoint(write_folder(tmp_path, config, my_head__weight=(1, 4), norm__weight=4))
        assert (found.head, found.mean, found.std) == ("my_head.weight", 0.5, 2.0)
        check_head(found)

    def test_a_name_that_is_no_text_or_leads_nowhere_is_passed_over(self, tmp_path: Path) -> None:
        for prefix in (7, None, "nowhere"):
            found = read_checkpoint(
                write_folder(tmp_path, CONFIG | {"value_head_prefix": prefix}, score__weight=(1, 4))
            )
            assert found.head == "score.weight"

    def test_a_head_may_be_in_any_shard(self, tmp_path: Path) -> None:
        write_folder(tmp_path, file="model-00001-of-00002.safetensors", model__embed__weight=(8, 4))
        write_folder(tmp_path, file="model-00002-of-00002.safetensors", score__weight=(1, 4), model__norm__weight=4)
        write_index(tmp_path, {"model.embed.weight": 1, "score.weight": 2, "model.norm.weight": 2})
        found = read_checkpoint(tmp_path)
        assert {name: (file.name, shape) for name, (file, shape) in found.tensors.items()} == {
            "model.embed.weight": ("model-00001-of-00002.safetensors", (8, 4)),
            "model.norm.weight": ("model-00002-of-00002.safetensors", (4,)),
            "score.weight": ("model-00002-of-00002.safetensors", (1, 4)),
        }
        assert "score.weight" in found.tensors and "lm_head.weight" not in found.tensors
        check_head(found)

    @pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "Gemma3ForConditionalGeneration"])
    def test_a_language_model_is_told_where_to_go(self, kind: str, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "lm", CONFIG | {"architectures": [kind]}, lm_head__weight=(8, 4))
        assert refusal(folder) == (
            f"{folder}: a language model came ({kind}), a reward model was needed; "
            f"train one on it with: plaudit train {folder} DATA --out RUN"
        )

    @pytest.mark.parametrize("head", ["v_head.weight", "v_head.summary.weight", "rwtransformer.v_head.weight"])
    def test_a_value_head_is_named(self, head: str, tmp_path: Path) -> None:
        config = CONFIG | {"architectures": ["LlamaForCausalLM"]}
        sentence = refusal(write_folder(tmp_path, config, model__norm__weight=4, **{head.replace(".", "__"): (1, 4)}))
        assert f"value head ({head})" in sentence and "language model came" not in sentence

    def test_a_class_with_several_objectives_is_named(self, tmp_path: Path) -> None:
        config = CONFIG | {"architectures": ["LlamaForRewardModelWithGating"]}
        sentence = refusal(write_folder(tmp_path, config, regression_layer__weight=(19, 4)))
        assert "got LlamaForRewardModelWithGating (regression_layer.weight)" in sentence
        assert "several objectives" in sentence and "missing" not in sentence

    @pytest.mark.parametrize(
        ("architecture", "changes"),
        [
            ("T5ForSequenceClassification", {}),
            ("T5ForConditionalGeneration", {}),
            ("SomeSeq2SeqForSequenceClassification", {"is_encoder_decoder": True}),
        ],
    )
    def test_an_encoder_decoder_is_named(self, architecture: str, changes: dict[str, Any], tmp_path: Path) -> None:
        config = CONFIG | {"architectures": [architecture]} | changes
        sentence = refusal(write_folder(tmp_path, config, classification_head__out_proj__weight=(1, 4)))
        assert f"got an encoder-decoder ({architecture})" in sentence

    @pytest.mark.parametrize("config", [CONFIG, {}, {"architectures": []}])
    def test_a_missing_head_is_named(self, config: dict[str, Any], tmp_path: Path) -> None:
        sentence = refusal(write_folder(tmp_path, config, model__norm__weight=4))
        assert "its reward head is missing" in sentence and "came without score.weight" in sentence
        assert ("no architecture named" in sentence) is not config.get("architectures")

    def test_two_labels_and_two_heads(self, tmp_path: Path) -> None:
        assert "a head with 2 labels came (score.weight), one with 1 was needed" in refusal(
            write_folder(tmp_path, score__weight=(2, 4))
        )
        assert "two heads came (score.weight and lm_head.weight), one was needed" in refusal(
            write_folder(tmp_path, score__weight=(1, 4), lm_head__weight=(8, 4))
        )

    def test_a_head_without_a_shape_has_no_rows(self, tmp_path: Path) -> None:
        found = read_checkpoint(write_folder(tmp_path, score__weight=()))
        assert found.head_rows == 0
        assert Checkpoint(folder=tmp_path, config={}, tensors=found.tensors, head=None).head_rows is None

    def test_the_card_says_whether_anyone_has_trained_it(self, tmp_path: Path) -> None:
        write_folder(tmp_path, score__weight=(1, 4))
        for said, is_untrained in (({"head": "new"}, True), ({"head": "trained"}, False), ({}, False)):
            (tmp_path / CARD).write_text(json.dumps(said))
            found = read_checkpoint(tmp_path)
            assert (dict(found.card), found.is_untrained) == (said, is_untrained)


class TestBrokenFolders:
    def test_no_configuration(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == f"{tmp_path}: no config.json there; a model folder holds a config.json"

    def test_a_configuration_that_is_no_object(self, tmp_path: Path) -> None:
        assert "a JSON object was needed, list came" in refusal(write_folder(tmp_path, [1], score__weight=(1, 4)))
        (tmp_path / "config.json").write_text('{"architectures": [')
        assert "config.json: not JSON (" in refusal(tmp_path)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
    def test_only_a_pickle(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        expected = "expected model.safetensors or model.safetensors.index.json, got"
        assert f"{expected} no weights" in refusal(tmp_path)
        (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
        assert f"{expected} only {name}, a pickle, which can run code when it is opened" in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "0 bytes that are not a whole safetensors file"),
            (b"\x10\x00", "2 bytes that are not a whole safetensors file"),
            (struct.pack("<Q", 0) + b"{}", "10 bytes that are not a whole safetensors file"),
            (struct.pack("<Q", 1 << 60) + b"{}", "10 bytes that are not a whole safetensors file"),
            (struct.pack("<Q", 2) + b"{[", "its list of tensors cannot be read"),
            (struct.pack("<Q", 2) + b"\xff\xff", "its list of tensors cannot be read"),
            (struct.pack("<Q", 2) + b"[]", "its list of tensors cannot be read"),
            (struct.pack("<Q", 7) + b'{"a":1}', "its list of tensors cannot be read"),
            (struct.pack("<Q", 8) + b'{"a":{}}', "its list of tensors cannot be read"),
        ],
    )
    def test_a_broken_file(self, content: bytes, said: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "model.safetensors").write_bytes(content)
        sentence = refusal(tmp_path)
        assert said in sentence and sentence.endswith("copy or download it again")
        assert str(tmp_path / "model.safetensors") in sentence

    def test_a_download_that_stopped(self, tmp_path: Path) -> None:
        file = write_folder(tmp_path, score__weight=(1, 4)) / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-3])
        assert f"{len(whole) - 3} of {len(whole)} bytes are there" in refusal(tmp_path)

    def test_a_file_without_tensors_is_a_whole_file(self, tmp_path: Path) -> None:
        write_header(tmp_path / "model.safetensors", {"__metadata__": {"format": "pt"}})
        assert read_tensors(tmp_path) == {}


class TestAdapters:
    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Path:
        write_folder(tmp_path, file="adapter_model.safetensors", base_model__model__q__lora_A__weight=(2, 4))
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
        return tmp_path

    def test_its_head_may_be_there_or_not(self, adapter: Path) -> None:
        assert read_adapter(adapter) == ({"base_model_name_or_path": "base"}, None)
        write_folder(adapter, file="adapter_model.safetensors", base_model__model__score__weight=(1, 4))
        assert read_adapter(adapter)[1] == Head(name="base_model.model.score.weight", num_rows=1)

    @pytest.mark.parametrize("said", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": ""}])
    def test_its_base_has_to_be_named(self, said: dict[str, Any], adapter: Path) -> None:
        (adapter / "adapter_config.json").write_text(json.dumps(said))
        with pytest.raises(ModelError, match=r"names no base model; put its path in base_model_name_or_path"):
            read_adapter(adapter)

    def test_a_stray_file_is_not_read_for_its_head(self, adapter: Path) -> None:
        write_folder(adapter, file="more.safetensors", base_model__model__score__weight=(1, 4))
        assert read_adapter(adapter)[1] is None

    def test_other_safetensors_do_not_stand_in_for_its_weights(self, adapter: Path) -> None:
        # peft would then open adapter_model.bin, a pickle, and load weights that nobody checked.
        (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
        (adapter / "adapter_model.bin").write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(ModelError, match=r"expected adapter_model\.safetensors, got other\.safetensors"):
            read_adapter(adapter)


class TestWhichFilesAreRead:
    """The files that transformers would load, and no other."""

    def test_a_stray_file_does_not_replace_the_head(self, tmp_path: Path) -> None:
        write_folder(tmp_path, score__weight=(1, 4), model__norm__weight=4)
        write_folder(tmp_path, file="old_head.safetensors", score__weight=(1, 4))
        found = read_checkpoint(tmp_path)
        assert found.tensors["score.weight"][0].name == "model.safetensors"
        assert found.ignored == ("old_head.safetensors",)

    def test_the_single_file_comes_before_the_index(self, tmp_path: Path) -> None:
        write_folder(tmp_path, score__weight=(1, 4))
        write_folder(tmp_path, file="model-00001-of-00002.safetensors", score__weight=(1, 4), extra__weight=4)
        write_index(tmp_path, {"score.weight": 1, "extra.weight": 1})
        found = read_checkpoint(tmp_path)
        assert set(found.tensors) == {"score.weight"} and found.ignored == ("model-00001-of-00002.safetensors",)

    def test_a_tensor_in_two_shards_is_refused(self, tmp_path: Path) -> None:
        write_folder(tmp_path, file="model-00001-of-00002.safetensors", score__weight=(1, 4), a__weight=4)
        write_folder(tmp_path, file="model-00002-of-00002.safetensors", score__weight=(1, 4))
        write_index(tmp_path, {"a.weight": 1, "score.weight": 2})
        assert "the tensor score.weight is in two files, model-00001-of" in refusal(tmp_path)

    def test_a_shard_that_is_missing_is_named(self, tmp_path: Path) -> None:
        write_folder(tmp_path, file="model-00001-of-00002.safetensors", a__weight=4)
        write_index(tmp_path, {"a.weight": 1, "score.weight": 2})
        assert "names model-00002-of-00002.safetensors, which is missing" in refusal(tmp_path)

    def test_shards_without_an_index_are_refused(self, tmp_path: Path) -> None:
        write_folder(tmp_path, file="model-00001-of-00002.safetensors", score__weight=(1, 4))
        assert "got model-00001-of-00002.safetensors, which is not what is loaded from it" in refusal(tmp_path)
        write_folder(tmp_path, file="model-00002-of-00002.safetensors", a__weight=4)
        assert "got 2 other files" in refusal(tmp_path)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "../model.safetensors", "/etc/model.safetensors"])
    def test_an_index_names_safetensors_of_this_folder_only(self, name: str, tmp_path: Path) -> None:
        write_folder(tmp_path / "m", file="other.safetensors", a__weight=4)
        write_index(tmp_path / "m", {"score.weight": name})
        assert f"got {name!r}" in refusal(tmp_path / "m")

    @pytest.mark.parametrize("places", [None, [], {}, {"score.weight": 7}])
    def test_an_index_without_files_is_refused(self, places: object, tmp_path: Path) -> None:
        write_folder(tmp_path, file="other.safetensors", a__weight=4)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        assert "expected a 'weight_map' of file names" in refusal(tmp_path)

    def test_the_file_that_the_configuration_names_is_read(self, tmp_path: Path) -> None:
        write_folder(tmp_path, score__weight=(1, 4), a__weight=4)
        write_folder(
            tmp_path,
            CONFIG | {"transformers_weights": "other.safetensors"},
            score__weight=(1, 4),
            file="other.safetensors",
        )
        found = read_checkpoint(tmp_path)
        assert set(found.tensors) == {"score.weight"} and found.ignored == ("model.safetensors",)

    @pytest.mark.parametrize("named", ["adapter_model.bin", "../other.safetensors", 7])
    def test_the_configuration_cannot_name_a_pickle(self, named: object, tmp_path: Path) -> None:
        write_folder(tmp_path, CONFIG | {"transformers_weights": named}, score__weight=(1, 4))
        assert repr(named) in refusal(tmp_path)
