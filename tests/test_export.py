"""export.py: a net, a run or a folder becomes the folder that every consumer loads, proven."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit import export
from plaudit.errors import ConfigError, ModelError
from plaudit.export import ExportSettings, choose_merged_dtype, dtype_of, export_model, find_source, publish
from plaudit.lora import LoraSettings, attach_lora, merging, save_adapter
from plaudit.proof import measure_difference
from plaudit.score import RewardModel
from plaudit.specimen import draw_starter_sample, score_sample
from speller import save_speller
from stranger import ask_nearby

REPORT = {"eval": {"accuracy": 0.6875}, "steps": 12}


@pytest.fixture(autouse=True)
def nearby(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return [] if "fresh" in request.node.name else ask_nearby(monkeypatch)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speller(tmp_path_factory.mktemp("export") / "base", kind="classifier", context=2048)


def load(folder: Path, dtype: str = "float32") -> RewardModel:
    return RewardModel.load(folder, dtype=dtype, device="cpu")


def adapted(base: Path, dtype: str = "float32", size: float = 0.1) -> RewardModel:
    net = load(base, dtype)
    torch.manual_seed(0)
    attach_lora(net, LoraSettings(rank=4))
    with torch.no_grad():
        for name, x in net.hf.named_parameters():
            if ".lora_B." in name:
                x.normal_(std=size)
    return net


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """The folder of a LoRA run: an adapter, and numbers."""
    folder = tmp_path / "run"
    save_adapter(adapted(base), folder / "adapter")
    (folder / "report.json").write_text(json.dumps(REPORT))
    return folder


def scores(folder: Path, dtype: str = "float32") -> list[float]:
    net = load(folder, dtype)
    return score_sample(net, draw_starter_sample(net))


def card_of(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder / "plaudit.json").read_text())
    return found


class TestPublishing:
    def test_a_net_becomes_a_proven_folder_with_a_page(self, base: Path, tmp_path: Path) -> None:
        net = load(base)
        target = tmp_path / "model"
        published = publish(net, target, sample=draw_starter_sample(net), card={"steps": 3}, report=REPORT)
        assert published.proof is not None and published.proof.rows == 9, "the page's example is proven as well"
        assert (published.folder, published.is_adapter, published.dtype) == (target, False, "float32")
        assert scores(target) == pytest.approx(scores(base), abs=1e-5)
        card = card_of(target)
        assert card["steps"] == 3 and card["proof"]["difference"] <= 1e-5 and "/" not in json.dumps(card["proof"])
        page = (target / "README.md").read_text()
        assert "| accuracy | 0.6875 |" in page and "| steps | 12 |" in page and "21 tensors bit for bit" in page

    @pytest.mark.parametrize("as_adapter", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_first_example_of_the_page_prints_what_it_says(
        self, dtype: str, as_adapter: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        net = adapted(base, dtype) if as_adapter else load(base, dtype)
        publish(net, tmp_path / "model", sample=draw_starter_sample(net), base=base)
        page = (tmp_path / "model" / "README.md").read_text()
        monkeypatch.chdir(tmp_path)
        exec(compile(page.split("```python\n")[1].split("```")[0], "README.md", "exec"), {})
        said = float(page.split("prints ")[1].split(",")[0])
        assert float(capsys.readouterr().out) == pytest.approx(said, abs=1e-4 if dtype == "float32" else 0.02)

    def test_an_adapted_net_becomes_an_adapter_and_inside_merging_a_model(self, base: Path, tmp_path: Path) -> None:
        net = adapted(base)
        sample = draw_starter_sample(net)
        wanted = score_sample(net, sample)
        lora = publish(net, tmp_path / "adapter", sample=sample, base=base)
        assert lora.is_adapter and lora.proof is not None and lora.proof.equal_tensors == 29
        with merging(net):
            plain = publish(net, tmp_path / "model", sample=sample)
        assert not plain.is_adapter and plain.proof is not None and plain.proof.way == "transformers"
        for folder in ("adapter", "model"):
            assert measure_difference(scores(tmp_path / folder), wanted) <= 1e-5

    def test_a_narrow_net_is_proven_in_float32(self, base: Path, tmp_path: Path) -> None:
        for net in (load(base, "bfloat16"), adapted(base, "bfloat16")):
            published = publish(net, tmp_path / type(net).__name__, sample=draw_starter_sample(net), base=base)
            shutil.rmtree(published.folder)
            assert published.dtype == "bfloat16" and published.computed_in == "float32"
            assert published.proof is not None and published.proof.difference <= 1e-5
            assert published.proof.narrow_difference is not None

    def test_a_failed_proof_leaves_what_was_there(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = load(base)
        sample, target = draw_starter_sample(net), tmp_path / "model"
        publish(net, target, sample=sample)
        before = {path.name: path.read_bytes() for path in target.iterdir()}

        def lose(draft: Path, *args: Any, **options: Any) -> Any:
            tensors = load_file(draft / "model.safetensors")
            tensors.pop("score.weight")
            save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
            return original(draft, *args, **options)

        original = export.prove_folder
        monkeypatch.setattr(export, "prove_folder", lose)
        with torch.no_grad():
            net.head.weight.mul_(2)
        with pytest.raises(ModelError, match=r"model: the save failed: a tensor is missing \(score.weight\)"):
            publish(net, target, sample=sample)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before
        assert {path.name for path in tmp_path.iterdir()} == {"model"}

    def test_a_proof_can_be_declined(self, base: Path, tmp_path: Path, nearby: list[Any]) -> None:
        net = load(base)
        published = publish(net, tmp_path / "model", sample=draw_starter_sample(net), prove=False)
        assert published.proof is None and nearby == []
        assert (
            "proof" not in card_of(published.folder) and "## Proof" not in (published.folder / "README.md").read_text()
        )

    def test_mean_and_deviation_are_stored_and_not_applied(self, base: Path, tmp_path: Path) -> None:
        net = load(base)
        sample = draw_starter_sample(net)
        card = {"normalisation": {"mean": 0.25, "std": 1.5, "count": 8, "source": "the starter data"}}
        target = publish(net, tmp_path / "model", sample=sample, card=card).folder
        config = json.loads((target / "config.json").read_text())
        assert (config["mean"], config["std"]) == (0.25, 1.5)
        assert scores(target) == pytest.approx(scores(base), abs=1e-5)
        publish(load(target), target, sample=sample)
        assert json.loads((target / "config.json").read_text())["mean"] == config["mean"], "it travels"
        publish(load(target), target, sample=sample, card={"normalisation": None})
        assert not {"mean", "std"} & json.loads((target / "config.json").read_text()).keys(), "and can be taken out"

    def test_a_head_cannot_be_renamed_in_an_adapter(self, base: Path, tmp_path: Path) -> None:
        net = adapted(base)
        with pytest.raises(ConfigError, match="head_prefix 'value_head' came with an adapter"):
            publish(net, tmp_path / "adapter", sample=draw_starter_sample(net), head_prefix="value_head")


class TestSources:
    def test_of_a_run_the_adapter_comes_first(self, run: Path, base: Path) -> None:
        source = find_source(str(run))
        assert (source.folder, source.is_adapter, source.report) == (run / "adapter", True, REPORT)
        shutil.copytree(base, run / "model")
        assert find_source(str(run)).is_adapter
        shutil.rmtree(run / "adapter")
        assert find_source(str(run)).folder == run / "model" and not find_source(str(run)).is_adapter

    def test_a_folder_stands_for_itself(self, run: Path, base: Path) -> None:
        assert find_source(str(base)).folder == base and not find_source(str(base)).is_adapter
        assert find_source(str(run / "adapter")).is_adapter and find_source(str(run / "adapter")).report == {}

    def test_a_model_that_has_a_folder_called_model_is_no_run(self, base: Path, tmp_path: Path) -> None:
        shutil.copytree(base, tmp_path / "odd")
        (tmp_path / "odd" / "model").mkdir()
        assert find_source(str(tmp_path / "odd")).folder == tmp_path / "odd"

    def test_what_is_neither_is_named(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"neither a run \(with model or adapter in it\) nor a model's folder"):
            find_source(str(tmp_path))
        with pytest.raises(ModelError, match="is not there; name a folder"):
            find_source(str(tmp_path / "gone"))
        (run / "report.json").write_text("{")
        with pytest.raises(ModelError, match=r"report.json: not JSON .*; remove it to export without its numbers"):
            find_source(str(run))

    def test_precision_is_that_of_the_files_and_of_an_adapter_that_of_its_base(
        self, base: Path, tmp_path: Path
    ) -> None:
        assert dtype_of(base) == "float32"
        assert dtype_of(load(base, "bfloat16").save(tmp_path / "narrow")) == "bfloat16"
        folder = save_adapter(adapted(base, "bfloat16"), tmp_path / "adapter")
        assert dtype_of(folder) == "bfloat16"
        card = {key: value for key, value in card_of(folder).items() if key != "base_dtype"}
        (folder / "plaudit.json").write_text(json.dumps(card))
        assert dtype_of(folder) == "float32"
        config = json.loads((base / "config.json").read_text()) | {"dtype": "float8_e4m3fn"}
        odd = Path(shutil.copytree(base, tmp_path / "odd"))
        (odd / "config.json").write_text(json.dumps(config))
        assert dtype_of(odd) == "float32"


class TestExporting:
    def test_an_adapter_is_copied_with_a_page_and_a_proof(self, run: Path, tmp_path: Path) -> None:
        (run / "adapter" / "optimizer.pt").write_bytes(b"a pickle")
        exported = export_model(str(run), tmp_path / "out")
        assert exported.published.is_adapter and not exported.merged and exported.consumers == ()
        assert scores(tmp_path / "out") == pytest.approx(scores(run / "adapter"), abs=1e-6)
        assert not (tmp_path / "out" / "optimizer.pt").exists()
        assert card_of(tmp_path / "out")["proof"]["way"] == "peft"
        assert "| accuracy | 0.6875 |" in (tmp_path / "out" / "README.md").read_text()

    def test_a_base_beside_the_adapter_is_found_from_anywhere(self, base: Path, run: Path, tmp_path: Path) -> None:
        shutil.copytree(base, run / "base")
        file = run / "adapter" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "../base"}))
        export_model(str(run), tmp_path / "deep" / "out")
        config = json.loads((tmp_path / "deep" / "out" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str((run / "base").resolve())

    def test_merged_it_is_a_plain_folder_with_the_same_scores(self, run: Path, tmp_path: Path) -> None:
        exported = export_model(str(run), tmp_path / "out", ExportSettings(merge=True))
        assert exported.merged and not exported.published.is_adapter
        assert "merged in float32, the precision of its base" in exported.notes
        assert not (tmp_path / "out" / "adapter_config.json").exists()
        assert measure_difference(scores(tmp_path / "out"), scores(run / "adapter")) <= 1e-5

    def test_of_a_narrow_base_the_sums_decide(self, base: Path, tmp_path: Path) -> None:
        narrow = load(base, "bfloat16").save(tmp_path / "narrow")
        for name, size in (("small", 1e-3), ("large", 0.3)):
            save_adapter(adapted(narrow, "bfloat16", size), tmp_path / name)
            exported = export_model(str(tmp_path / name), tmp_path / f"{name}-out", ExportSettings(merge=True))
            [said] = [note for note in exported.notes if "of their deviation" in note]
            assert exported.published.dtype in said
            exact = scores(tmp_path / name)
            if exported.published.dtype == "float32":
                assert measure_difference(scores(tmp_path / f"{name}-out"), exact) <= 1e-5
        forced = ExportSettings(merge=True, dtype="bfloat16")
        assert export_model(str(tmp_path / "large"), tmp_path / "forced", forced).published.dtype == "bfloat16"
        assert load_file(tmp_path / "forced" / "model.safetensors")["score.weight"].dtype == torch.float32

    def test_rounding_is_allowed_where_it_moves_little(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        net = load(base)
        with torch.no_grad():
            for x in net.backbone.parameters():
                x.copy_(x.bfloat16())
        dtype, said = choose_merged_dtype(net, "bfloat16")
        assert dtype == "bfloat16" and "moves scores by 0.0% of their deviation" in said
        monkeypatch.setattr(export, "ROUNDING", -1.0)
        assert choose_merged_dtype(net, "bfloat16")[0] == "float32"
        assert choose_merged_dtype(net, "float32") == ("float32", "merged in float32, the precision of its base")

    def test_a_model_keeps_its_precision_or_gets_another(self, base: Path, tmp_path: Path) -> None:
        narrow = load(base, "bfloat16").save(tmp_path / "narrow")
        assert export_model(str(narrow), tmp_path / "same").published.dtype == "bfloat16"
        wide = export_model(str(narrow), tmp_path / "wide", ExportSettings(dtype="float32"))
        assert wide.published.dtype == "float32"
        assert scores(tmp_path / "wide") == pytest.approx(scores(narrow), abs=1e-6)

    def test_the_head_is_called_what_transformers_looks_for_unless_told(self, base: Path, tmp_path: Path) -> None:
        named = export_model(str(base), tmp_path / "named", ExportSettings(head_prefix="value_head"))
        assert named.published.proof is not None and named.published.proof.way == "openrlhf"
        assert "value_head.weight" in load_file(tmp_path / "named" / "model.safetensors")
        export_model(str(tmp_path / "named"), tmp_path / "plain")
        assert "score.weight" in load_file(tmp_path / "plain" / "model.safetensors")
        assert scores(tmp_path / "plain") == pytest.approx(scores(base), abs=1e-6)

    def test_consumers_are_asked_if_that_is_wanted(self, run: Path, tmp_path: Path) -> None:
        exported = export_model(str(run), tmp_path / "out", ExportSettings(merge=True, check=True))
        assert [consumer.name for consumer in exported.consumers if consumer.ok] == [
            "transformers", "transformers 4", "pipeline", "TRL", "OpenRLHF", "vLLM", "SGLang", "verl", "CrossEncoder",
        ]  # fmt: skip

    def test_what_cannot_be_meant_is_refused(self, run: Path, base: Path, tmp_path: Path) -> None:
        for settings in (ExportSettings(head_prefix="v"), ExportSettings(dtype="bfloat16")):
            with pytest.raises(
                ConfigError, match="came with an adapter, whose names and precision are peft's; add --m"
            ):
                export_model(str(run), tmp_path / "out", settings)
        with pytest.raises(ConfigError, match="the exported folder itself came, another one was needed"):
            export_model(str(base), base)
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter").write_text("years")
        with pytest.raises(ModelError, match="a folder that is not a model is there"):
            export_model(str(base), tmp_path / "thesis")

    def test_merging_a_whole_model_is_said_to_be_nothing(self, base: Path, tmp_path: Path) -> None:
        exported = export_model(str(base), tmp_path / "out", ExportSettings(merge=True))
        assert not exported.merged and f"{base} is a whole model: there is nothing to merge" in exported.notes


def test_in_a_fresh_process_the_whole_way(run: Path, tmp_path: Path) -> None:
    exported = export_model(str(run), tmp_path / "out", ExportSettings(merge=True))
    assert exported.published.proof is not None and exported.published.proof.equal_tensors == 21
