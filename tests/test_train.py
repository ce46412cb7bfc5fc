"""Training end to end on one process: it learns, and what it leaves is what plain transformers load."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit.alarms import STUCK_AFTER, RunLog
from plaudit.contamination import check_contamination, find_seen, read_seen
from plaudit.errors import ConfigError, InputError
from plaudit.features import Features, HeadSettings, fit_head
from plaudit.formats import read_groups
from plaudit.losses import LOSSES
from plaudit.model import PLAIN, RewardNet
from plaudit.parts import Ranks
from plaudit.preparation import prepare
from plaudit.runs import read_saved
from plaudit.score import RewardModel
from schooling import Json, fit, graded_rows, settle, write_rows
from tiny import TEMPLATE, save_model

GOLDEN = Path(__file__).parent / "golden" / "losses.json"


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's peak is another test's business, and takes a third of a second to measure."""
    monkeypatch.setattr("plaudit.preparation.measure_peak", lambda *a, **k: SimpleNamespace(gflops=100.0))


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, a language model, and rows of every kind to train and to measure on."""
    folder = tmp_path_factory.mktemp("school")
    save_model(folder / "rm")
    save_model(folder / "lm", kind="lm")
    for kind in ("pairs", "order", "ratings", "attributes"):
        write_rows(folder / f"{kind}.jsonl", graded_rows(240, kind))
        write_rows(folder / f"{kind}-eval.jsonl", graded_rows(60, kind, seed=9))
    return folder


def evals(school: Path, kind: str = "pairs") -> tuple[Path]:
    return (school / f"{kind}-eval.jsonl",)


def plain_scores(folder: Path, rows: list[Json]) -> list[list[float]]:
    """Each completion alone, by transformers and nothing else."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        scores = []
        for text in row["completions"]:
            turns = [*row["prompt"], {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(turns, tokenize=True, return_tensors="pt", return_dict=True)
            with torch.no_grad():
                scores.append(float(model(**ids).logits[0, 0]))
        found.append(scores)
    return found


def our_scores(folder: Path, rows: list[Json]) -> list[list[float]]:
    model = RewardModel.load(str(folder), dtype="float32", device="cpu")
    return [model.score(row["prompt"], row["completions"]) for row in rows]


def assert_close(one: list[list[float]], other: list[list[float]], tolerance: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)


def order_of(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda k: -scores[k])


MODES = {
    "full": ("rm", ()),
    "a new head": ("lm", ()),
    "lora": ("lm", ("lora.enabled=true", "train.learning_rate=0.01", "train.epochs=3")),
    "frozen": ("rm", ("train.backbone=frozen", "train.learning_rate=0.03", "train.epochs=40")),
}


class TestModes:
    @pytest.mark.parametrize("mode", MODES)
    def test_it_learns_and_plain_transformers_give_the_same_scores(
        self, school: Path, tmp_path: Path, mode: str
    ) -> None:
        model, overrides = MODES[mode]
        settled = settle(school / model, school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
        report, rows, _ = fit(settled)
        first = next(row["loss"] for row in rows if "loss" in row)
        assert report["eval"]["accuracy"] > (0.75 if mode == "frozen" else 0.9)
        assert report["eval"]["loss"] < 0.8 * first
        shown = graded_rows(12, seed=9)
        ours = our_scores(tmp_path / "run" / "model", shown)
        assert_close(plain_scores(tmp_path / "run" / "model", shown), ours, 2e-5)
        spread = [max(scores) - min(scores) for scores in ours]
        assert min(spread) > 0 and max(spread) < 1e3
        if mode == "lora":
            assert_close(our_scores(tmp_path / "run" / "adapter", shown), ours, 1e-4)

    @pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's own making
    def test_an_adapter_loads_in_plain_peft(self, school: Path, tmp_path: Path) -> None:
        overrides = ("lora.enabled=true", "train.max_steps=4")
        fit(settle(school / "lm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school)))
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        base = AutoModelForSequenceClassification.from_pretrained(school / "lm", num_labels=1, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
        [row] = graded_rows(1, seed=9)
        for text, ours in zip(row["completions"], our_scores(tmp_path / "run" / "adapter", [row])[0], strict=True):
            turns = [*row["prompt"], {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(turns, tokenize=True, return_tensors="pt", return_dict=True)
            assert float(model(**ids).logits[0, 0].detach()) == pytest.approx(ours, rel=1e-4, abs=1e-5)

    def test_a_reward_model_goes_on_with_its_head(self, school: Path, tmp_path: Path) -> None:
        before = RewardNet.load(school / "rm", dtype="float32", device="cpu").head.weight.detach().clone()
        overrides = ("train.learning_rate=1e-7", "train.max_steps=1")
        fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school)))
        after = load_file(tmp_path / "run" / "model" / "model.safetensors")["score.weight"]
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
        assert not torch.equal(before, torch.zeros_like(before))

    def test_a_fresh_process_proves_what_is_saved(self, school: Path, tmp_path: Path) -> None:
        overrides = ("train.max_steps=2", "proof=true")
        _, _, said = fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))
        card = json.loads((tmp_path / "run" / "model" / "plaudit.json").read_text())
        assert any("fresh process" in sentence for sentence in said), said
        assert card["proof"]


LOSS_DATA = {
    "bradley_terry": "pairs",
    "log_exp": "pairs",
    "hinge": "pairs",
    "ordinal": "pairs",
    "scaled_bt": "pairs",
    "token_wise": "pairs",
    "plackett_luce": "order",
    "regression": "ratings",
}


class TestLosses:
    @pytest.mark.parametrize("name", LOSS_DATA)
    def test_each_one_learns(self, school: Path, tmp_path: Path, name: str) -> None:
        kind = LOSS_DATA[name]
        overrides = (f"loss.name={name}", "train.epochs=3")
        settled = settle(
            school / "rm", school / f"{kind}.jsonl", tmp_path / "run", *overrides, evals=evals(school, kind)
        )
        report, rows, _ = fit(settled)
        # The mean over all tokens that differ is a harder thing to learn than the last one's score.
        assert report["eval"]["accuracy"] > (0.75 if name == "token_wise" else 0.9)
        assert report["eval"]["loss"] < 0.8 * rows[0]["loss"]
        assert ("ordinal" in json.loads((tmp_path / "run/model/plaudit.json").read_text())["trained"]) is (
            name == "ordinal"
        )

    def test_attributes_are_learned_apart_and_folded_into_one_score(self, school: Path, tmp_path: Path) -> None:
        overrides = (
            "loss.name=regression", "loss.attributes=helpful,honest", "loss.attribute_weights=1,0", "train.epochs=5",
            "train.best_by=loss",
        )  # fmt: skip
        settled = settle(
            school / "rm", school / "attributes.jsonl", tmp_path / "run", *overrides,
            evals=evals(school, "attributes"),
        )  # fmt: skip
        _, _, said = fit(settled)
        assert "2 attributes are learned (helpful, honest), and folded into one score" in said
        rows = graded_rows(20, "attributes", seed=11)
        scores = plain_scores(tmp_path / "run" / "model", rows)
        helpful = [order_of(row["labels"][0]["ratings"]) for row in rows]
        assert sum(order_of(s) == h for s, h in zip(scores, helpful, strict=True)) >= 16
        assert_close(our_scores(tmp_path / "run" / "model", rows), scores)

    def test_ten_steps_have_the_losses_that_they_had(self, school: Path, tmp_path: Path) -> None:
        """To 1e-4, which is what another order of summation makes of ten steps; a wrong gradient moves them by 1e-2."""
        overrides = ("train.max_steps=10", "train.epochs=1", "train.schedule=linear")
        _, rows, _ = fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))
        found = [row["loss"] for row in rows if "loss" in row]
        assert found == pytest.approx(json.loads(GOLDEN.read_text())["losses"], rel=1e-4)


class TestWhatIsLeft:
    def test_a_run_folder_holds_everything(self, school: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        report, rows, _ = fit(settle(school / "rm", school / "pairs.jsonl", out, evals=evals(school)))
        assert {"pairs_per_second", "unique_tokens_per_second", "eval", "model", "run", "steps", "best_step"} <= set(
            report
        )
        assert report["model"] == str(out / "model") and report["sharing"] > 1 and report["pairs_per_second"] > 0
        written = json.loads((out / "report.json").read_text())
        assert json.loads(json.dumps({key: value for key, value in report.items() if key != "curves"})) == written
        assert {path.name for path in out.iterdir()} >= {
            "config.yaml", "environment.json", "metrics.jsonl", "report.json", "seen.npz", "model", "checkpoints"
        }  # fmt: skip
        assert json.loads((out / "environment.json").read_text())["data"]
        assert {"learning_rate", "loss", "grad_norm", "accuracy", "skipped_steps"} <= set(rows[0])
        keys = [(row["step"], "loss" in row) for row in rows]
        assert len(keys) == len(set(keys)), "a step is told twice"

    def test_what_was_trained_on_is_found_again(self, school: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        fit(settle(school / "rm", school / "pairs.jsonl", out, evals=evals(school)))
        place = find_seen(out / "model")
        assert place == out / "seen.npz"
        seen = read_seen(place)
        assert check_contamination(read_groups(school / "pairs.jsonl"), seen).flagged == 240
        assert check_contamination(read_groups(school / "pairs-eval.jsonl"), seen).same_prompt == 0
        card = json.loads((out / "model" / "plaudit.json").read_text())["trained"]["seen"]
        assert card["file"] == "seen.npz" and card["groups"] == 240 and card["share"] == 1.0

    def test_every_value_that_was_used_is_in_the_config_with_its_reason(self, school: Path, tmp_path: Path) -> None:
        overrides = ("precision=auto", "train.learning_rate=auto", "train.max_steps=2")
        fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))
        config = read_saved(tmp_path / "run")
        assert config is not None and config.precision in ("float32", "bfloat16")
        assert None not in (config.train.learning_rate, config.train.budget, config.train.eval_every)
        text = (tmp_path / "run" / "config.yaml").read_text()
        for key in ("precision: ", "learning_rate: ", "budget: ", "eval_every: "):
            line = next(line for line in text.splitlines() if line.strip().startswith(key))
            assert "# derived: " in line, line

    def test_mean_and_spread_of_the_evaluation_scores_are_stored(self, school: Path, tmp_path: Path) -> None:
        fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", evals=evals(school)))
        rows = [json.loads(line) for line in evals(school)[0].read_text().splitlines()]
        scores = torch.tensor([s for row in plain_scores(tmp_path / "run" / "model", rows) for s in row])
        config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
        assert config["mean"] == pytest.approx(float(scores.mean()), abs=1e-3)
        assert config["std"] == pytest.approx(float(scores.std()), rel=0.02)
        told = json.loads((tmp_path / "run" / "model" / "plaudit.json").read_text())["normalisation"]
        assert told["count"] == 120 and told["source"] == "pairs-eval"

    def test_the_best_checkpoint_is_what_is_saved(self, school: Path, tmp_path: Path) -> None:
        # A rate that breaks what was learned: the last weights are not the best.
        overrides = (
            "train.learning_rate=0.2", "train.schedule=constant", "train.warmup=0.5", "train.eval_every=2",
            "train.keep=1", "train.max_steps=24", "train.best_by=loss",
        )  # fmt: skip
        out = tmp_path / "run"
        report, rows, _ = fit(settle(school / "rm", school / "pairs.jsonl", out, *overrides, evals=evals(school)))
        losses = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
        best = min(losses, key=lambda step: losses[step])
        assert best < 24 and report["best_step"] == best
        assert report["eval"]["loss"] == pytest.approx(losses[best], rel=1e-5)
        saved = load_file(out / "model" / "model.safetensors")
        kept = load_file(out / "checkpoints" / f"checkpoint-{best}" / "trained.safetensors")
        assert all(torch.equal(saved[name], kept[name]) for name in kept)
        assert len(list((out / "checkpoints").glob("checkpoint-*"))) <= 3


class TestEvaluation:
    def test_several_sets_have_their_names_and_one_of_them_chooses(self, school: Path, tmp_path: Path) -> None:
        other = write_rows(tmp_path / "other.jsonl", graded_rows(30, seed=5))
        overrides = ("train.best_by=other/loss", "train.max_steps=6")
        sets = (*evals(school), other)
        report, rows, _ = fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=sets))
        assert {"pairs-eval_accuracy", "other_accuracy", "other_loss"} <= set(report["eval"])
        losses = {row["step"]: row["eval_other_loss"] for row in rows if "eval_other_loss" in row}
        assert report["best_step"] == min(losses, key=lambda step: losses[step])

    def test_accuracy_alone_is_that_of_the_first_set(self, school: Path, tmp_path: Path) -> None:
        other = write_rows(tmp_path / "other.jsonl", graded_rows(30, seed=5))
        out = tmp_path / "run"
        settled = settle(school / "rm", school / "pairs.jsonl", out, "train.max_steps=2", evals=(*evals(school), other))
        report, _, _ = fit(settled)
        assert report["eval"]["pairs-eval_accuracy"] >= 0

    @pytest.mark.parametrize("mode", ["trained", "frozen"])
    def test_a_set_that_is_not_there_cannot_choose(self, school: Path, tmp_path: Path, mode: str) -> None:
        overrides = ("train.best_by=gone/loss", f"train.backbone={mode}")
        settled = settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
        with pytest.raises(ConfigError, match=r"no evaluation set is called 'gone'; there is pairs-eval"):
            fit(settled)

    @pytest.mark.parametrize("mode", ["trained", "frozen"])
    def test_it_stops_early(self, school: Path, tmp_path: Path, mode: str) -> None:
        overrides = (
            "train.learning_rate=1e-9", "train.eval_every=1", "train.patience=2", "train.max_steps=30",
            f"train.backbone={mode}",
        )  # fmt: skip
        report, rows, _ = fit(
            settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
        )
        assert report["steps"] <= 6 and max(row["step"] for row in rows) == report["steps"]

    def test_without_evaluation_data_the_last_weights_are_saved(self, school: Path, tmp_path: Path) -> None:
        overrides = ("split.eval_share=0", "train.max_steps=3")
        report, _, said = fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))
        assert report["eval"] == {} and report["best_step"] == 3
        assert any("nothing measures what is learned" in sentence for sentence in said)


class TestSettings:
    def test_templates_and_tokens_that_were_asked_for_are_used_and_saved(self, school: Path, tmp_path: Path) -> None:
        template = TEMPLATE.replace("{{ m['content'] }}", "w50 {{ m['content'] }}")
        (tmp_path / "chat.jinja").write_text(template)
        overrides = (f"render.chat_template={tmp_path / 'chat.jinja'}", "render.pad_token=<unk>", "train.max_steps=2")
        fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
        turns = [{"role": "user", "content": "w20"}, {"role": "assistant", "content": "w21"}]
        assert tokenizer.apply_chat_template(turns, tokenize=False).count("w50") == 2
        assert tokenizer.pad_token == "<unk>"
        assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["pad_token_id"] == 1

    @pytest.mark.parametrize("told", ["render.eos_token=<gone>", "render.pad_token=<gone>"])
    def test_a_token_that_is_none_is_refused(self, school: Path, tmp_path: Path, told: str) -> None:
        with pytest.raises(ConfigError, match="which is no token of this tokenizer"):
            fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", told))

    def test_a_template_that_is_none_is_refused(self, school: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no file, no folder or model with a tokenizer, and no template itself"):
            fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", "render.chat_template=gone.jinja"))

    def test_arguments_of_from_pretrained_reach_the_model(self, school: Path, tmp_path: Path) -> None:
        overrides = ("model_args.rms_norm_eps=0.01", "train.max_steps=2")
        fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))
        config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
        assert config["rms_norm_eps"] == 0.01
        rows = graded_rows(4, seed=9)
        assert_close(our_scores(tmp_path / "run" / "model", rows), plain_scores(tmp_path / "run" / "model", rows))

    def test_an_argument_that_no_model_takes_is_refused(self, school: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no_such_thing"):
            fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", "model_args.no_such_thing=1"))

    def test_activations_kept_elsewhere_change_no_weight(self, school: Path, tmp_path: Path) -> None:
        states = []
        for name, told in (("plain", "false"), ("away", "true")):
            overrides = (f"train.activation_offload={told}", "train.max_steps=3")
            fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / name, *overrides))
            states.append(load_file(tmp_path / name / "model" / "model.safetensors"))
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class TestStreams:
    def test_a_stream_is_trained_on_pass_after_pass(self, school: Path, tmp_path: Path) -> None:
        overrides = ("streaming=true", "train.max_steps=45", "train.eval_every=15")
        report, rows, said = fit(
            settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
        )
        assert report["steps"] == 45 and report["eval"]["accuracy"] > 0.95  # three passes of fifteen steps
        assert any("training data are streamed" in sentence for sentence in said)
        assert len([row for row in rows if "loss" in row]) == 45
        seen = read_seen(tmp_path / "run" / "seen.npz")
        assert seen.groups == 240 and check_contamination(read_groups(school / "pairs.jsonl"), seen).flagged == 240

    def test_features_of_a_stream_cannot_be_kept(self, school: Path, tmp_path: Path) -> None:
        overrides = ("streaming=true", "train.max_steps=4", "train.backbone=frozen")
        with pytest.raises(ConfigError, match="keeps a feature of every row"):
            fit(settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides))


POISON = 8
"""The number of the word w8, whose embedding is not a number in a poisoned model."""


def poison(folder: Path) -> Path:
    """A model with a word that is not a number, which its self-test does not come upon: it knows many others."""
    save_model(folder, vocab_size=4000)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][POISON] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert RewardNet.load(folder, dtype="float32", device="cpu").backend != PLAIN
    return folder


class TestPoison:
    @pytest.mark.parametrize("mode", ["trained", "lora", "frozen"])
    def test_a_row_that_is_not_a_number_is_named_and_moves_nothing(
        self, school: Path, tmp_path: Path, mode: str
    ) -> None:
        rows = graded_rows(33, seed=3)
        rows[7]["completions"][0] = "w20 w8 w13"
        rows[7]["id"] = "poisoned"
        data = write_rows(tmp_path / "rows.jsonl", rows)
        model = poison(tmp_path / "model")
        overrides = [
            "train.groups_per_step=1", "train.epochs=1", "split.eval_share=0", "train.learning_rate=1e-3",
            f"lora.enabled={'true' if mode == 'lora' else 'false'}",
            f"train.backbone={'frozen' if mode == 'frozen' else 'trained'}",
        ]  # fmt: skip
        report, _, said = fit(settle(model, data, tmp_path / "run", *overrides))
        [skipped] = report["skipped_steps"]
        assert skipped["rows"] == ["poisoned"] and report["steps"] == 33
        [told] = [sentence for sentence in said if "was skipped" in sentence]
        assert "poisoned" in told and f"step {skipped['step']} " in told
        saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
        for name, weight in saved.items():
            rest = weight[torch.arange(len(weight)) != POISON] if "embed" in name else weight
            assert torch.isfinite(rest).all(), name

    @pytest.mark.parametrize("mode", ["trained", "frozen"])
    def test_evaluation_leaves_out_and_names_groups_with_a_nonfinite_score(
        self, school: Path, tmp_path: Path, mode: str
    ) -> None:
        """The means are those of the other groups alone, so that the best checkpoint can be chosen by them."""
        clean = graded_rows(20, seed=5)
        poisoned = [{**row, "completions": list(row["completions"])} for row in clean]
        poisoned[3] |= {"id": "poisoned", "completions": ["w20 w8 w13", clean[3]["completions"][1]]}
        files = {
            "poisoned": write_rows(tmp_path / "poisoned.jsonl", poisoned),
            "rest": write_rows(tmp_path / "rest.jsonl", [row for n, row in enumerate(clean) if n != 3]),
        }
        model = poison(tmp_path / "model")
        overrides = ("train.max_steps=4", "train.eval_every=2", "train.best_by=loss", f"train.backbone={mode}")
        found = {}
        for name, file in files.items():
            run = settle(model, school / "pairs.jsonl", tmp_path / name, *overrides, evals=(file,))
            found[name], _, said = fit(run)
            sentences = [text for text in said if "non-finite" in text]
            assert all("1 of 20 groups" in text and "poisoned" in text for text in sentences)
            assert bool(sentences) is (name == "poisoned")
        left_out = found["poisoned"]["eval"].pop("nonfinite_groups")
        assert left_out == 1 and "nonfinite_groups" not in found["rest"]["eval"]
        for key in ("loss", "accuracy", "margin", "mean_reward", "reward_std"):
            assert found["poisoned"]["eval"][key] == pytest.approx(found["rest"]["eval"][key], rel=1e-5), key
        assert found["poisoned"]["best_step"] == found["rest"]["best_step"]

    def test_weights_are_those_of_a_run_whose_step_had_nothing_in_it(self, school: Path, tmp_path: Path) -> None:
        """The poisoned step counts as one; its weights, averages and rate aside, nothing else is different."""
        rows = graded_rows(12, seed=3)
        clean = write_rows(tmp_path / "clean.jsonl", rows)
        rows[11]["completions"] = ["w20 w8 w10", "w20 w8 w13"]
        data = write_rows(tmp_path / "rows.jsonl", rows)
        model = poison(tmp_path / "model")
        overrides = (
            "train.groups_per_step=1", "train.epochs=1", "split.eval_share=0", "train.schedule=constant",
            "train.warmup=0", "train.save_every=1", "train.keep=12",
        )  # fmt: skip
        found = {}
        for name, file in (("poisoned", data), ("clean", clean)):
            report, _, _ = fit(settle(model, file, tmp_path / name, *overrides))
            found[name] = report["skipped_steps"]
        [skipped] = found["poisoned"]
        before, after = skipped["step"] - 1, skipped["step"]
        if before:
            states = [
                load_file(tmp_path / "poisoned" / "checkpoints" / f"checkpoint-{step}" / "trained.safetensors")
                for step in (before, after)
            ]
            assert all(torch.equal(states[0][k].nan_to_num(), states[1][k].nan_to_num()) for k in states[0])
        assert found["clean"] == []


def test_too_many_in_a_row_stop_the_run_with_the_last_good_checkpoint(school: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = graded_rows(40, seed=3)
    for row in rows:
        row["completions"][0] = "w20 w8 w13"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    model = poison(tmp_path / "model")
    overrides = ("train.groups_per_step=1", "train.max_skipped=3", "split.eval_share=0")
    for mode in ("trained", "frozen"):
        with pytest.raises(InputError, match="4 steps in a row were not a number"):
            fit(settle(model, data, tmp_path / mode, *overrides, f"train.backbone={mode}"))
        assert not (tmp_path / mode / "model").exists()


def test_the_head_of_an_encoder_is_fitted_on_what_it_reads(school: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "encoder", "modernbert")
    overrides = ("train.backbone=frozen", "train.learning_rate=0.03", "train.epochs=20")
    settled = settle(model, school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
    report, rows, _ = fit(settled)
    assert report["eval"]["loss"] < next(row["loss"] for row in rows if "loss" in row)
    data = [json.loads(line) for line in evals(school)[0].read_text().splitlines()]
    scores = our_scores(tmp_path / "run" / "model", data)
    above = [row["labels"][0]["better"] == order_of(s)[0] for s, row in zip(scores, data, strict=True)]
    assert sum(above) / len(above) == pytest.approx(report["eval"]["accuracy"], abs=0.02)


def test_the_thresholds_saved_with_a_frozen_head_are_those_of_its_best_step(school: Path, tmp_path: Path) -> None:
    """The report's best evaluation can be computed again from the head and the thresholds that are saved."""
    overrides = ("train.backbone=frozen", "loss.name=ordinal", "train.learning_rate=0.5", "train.epochs=6")
    settled = settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
    session = prepare(settled, ranks=Ranks(), say=lambda sentence: None)
    fit = session.config.train
    settings = HeadSettings(
        loss=session.loss, fit=fit, seed=0, budget=2048, log=lambda *line: None, say=lambda sentence: None
    )
    report = fit_head(session.net, session.train, session.evals, settings)
    assert report["best_step"] < report["steps"], "the last step is the best: nothing was restored"
    thresholds = torch.tensor(report["thresholds"]["thresholds"])
    [held] = session.evals.values()
    features, targets = Features(session.net, held, 2048).draw(range(len(held)))
    score_L = session.net.head(features).squeeze(-1).detach()
    loss = LOSSES[session.loss.name].compute(score_L, targets, session.loss, thresholds)
    assert float(loss) / targets.count == pytest.approx(report["eval"]["loss"], rel=1e-4)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_resumed_run_raises_alarms_only_if_checks_are_enabled(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    """The interrupted run's metrics would raise an alarm; with checks.enabled=false they do not."""
    overrides = (f"checks.enabled={str(enabled).lower()}", "train.max_steps=2")
    before = [{"step": 0, "loss": math.log(2), "accuracy": 0.5}] * STUCK_AFTER
    monkeypatch.setattr("plaudit.train._rows", lambda run: before)
    settled = settle(school / "rm", school / "pairs.jsonl", tmp_path / "run", *overrides, evals=evals(school))
    report, _, _ = fit(settled)
    assert ("stuck" in report["alarms"]) is enabled


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_adapter_resumes_to_the_same_weights_and_merges_exactly(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    pytest.importorskip("bitsandbytes")
    save_model(tmp_path / "lm", kind="lm", hidden_size=64, intermediate_size=96)
    overrides = (
        "lora.enabled=true", f"lora.bits={bits}", "lora.dropout=0.1", "train.max_steps=6", "train.save_every=2",
        "train.eval_every=2", "train.learning_rate=0.01",
    )  # fmt: skip
    runs = {
        name: settle(tmp_path / "lm", school / "pairs.jsonl", tmp_path / name, *overrides, evals=evals(school))
        for name in ("whole", "stopped")
    }
    fit(runs["whole"])
    on_log = RunLog.on_log

    def stop_at_5(self: RunLog, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        on_log(self, args, state, *rest, **kwargs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "on_log", stop_at_5)
    with pytest.raises(KeyboardInterrupt):
        fit(runs["stopped"])
    monkeypatch.setattr(RunLog, "on_log", on_log)
    _, _, said = fit(runs["stopped"], resume=True)
    assert any("checkpoint-4" in sentence for sentence in said)
    whole, resumed = (load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in runs)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    shown = graded_rows(6, seed=9)
    adapter, merged = (our_scores(tmp_path / "whole" / part, shown) for part in ("adapter", "model"))
    assert_close(adapter, merged)
