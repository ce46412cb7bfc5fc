"""saving.py: a folder that plain transformers loads as it is, whole or not there."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import plaudit
from plaudit import __version__
from plaudit.checkpoint import CARD
from plaudit.errors import ConfigError, ModelError
from plaudit.group import Completion, Group
from plaudit.render import Renderer
from plaudit.score import RewardModel
from tiny import TEMPLATE, make_tokenizer, save_model

QUESTION, ANSWERS = "w20 w21 w22", ["w30 w31", "w40", "w50 w51 w52 w53"]

CONSUMER = """
import json, sys, warnings
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, question, answers = sys.argv[1], sys.argv[2], sys.argv[3:]
model, found = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
turns = [[{"role": "user", "content": question}, {"role": "assistant", "content": a}] for a in answers]
texts = tokenizer.apply_chat_template(turns, tokenize=False)
batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
with torch.inference_mode():
    scores = model(**{k: batch[k] for k in ("input_ids", "attention_mask")}).logits[:, 0].tolist()
piped = pipeline("text-classification", model=model, tokenizer=tokenizer)(texts, add_special_tokens=False)
print(json.dumps({
    "class": type(model).__name__,
    "found": {name: sorted(map(str, keys)) for name, keys in found.items() if keys},
    "ours": "plaudit" in sys.modules,
    "scores": scores,
    "piped": [row["score"] for row in piped],
    "padded": bool((batch["attention_mask"] == 0).any()),
}))
"""


def load(folder: Path, **asked: Any) -> RewardModel:
    return plaudit.load(folder, **{"dtype": "float32", "device": "cpu", **asked})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("saving") / "reward")


@pytest.fixture
def rm(folder: Path) -> RewardModel:
    return load(folder)


def read_config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def tensors_of(folder: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            found |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    return found


def test_a_fresh_process_without_us_gives_the_same_scores(rm: RewardModel, tmp_path: Path) -> None:
    saved = rm.save(tmp_path / "saved")
    words = [sys.executable, "-c", CONSUMER, str(saved), QUESTION, *ANSWERS]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert (told["class"], told["found"], told["ours"]) == ("LlamaForSequenceClassification", {}, False)
    wanted = rm.score(QUESTION, ANSWERS)
    assert told["padded"] and told["scores"] == pytest.approx(wanted, rel=1e-5)
    assert told["piped"] == pytest.approx(wanted, rel=1e-5), "a regression's score is not squeezed"


class TestContract:
    def test_the_configuration_is_a_regressions_with_one_label(self, rm: RewardModel, tmp_path: Path) -> None:
        config = read_config(rm.save(tmp_path / "saved"))
        assert config["architectures"] == ["LlamaForSequenceClassification"]
        assert config["problem_type"] == "regression"
        assert len(config["id2label"]) == len(config["label2id"]) == 1
        assert config["value_head_prefix"] == "score"
        assert config["pad_token_id"] == rm.tokenizer.pad_token_id

    def test_cross_encoder_returns_the_raw_score(self, rm: RewardModel, tmp_path: Path) -> None:
        # sentence-transformers' CrossEncoder reads its activation from this place; its default is a sigmoid.
        identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
        saved = rm.save(tmp_path / "saved")
        assert read_config(saved)["sentence_transformers"] == identity
        own = {"version": "5.0.0", "activation_fn": "torch.nn.modules.activation.Sigmoid"}
        (saved / "config.json").write_text(json.dumps(read_config(saved) | {"sentence_transformers": own}))
        again = load(saved).save(tmp_path / "again")
        assert read_config(again)["sentence_transformers"] == {"version": "5.0.0", **identity}

    def test_the_weights_are_safetensors_and_the_head_is_one_row_without_a_bias(
        self, rm: RewardModel, tmp_path: Path
    ) -> None:
        saved = rm.save(tmp_path / "saved")
        shapes = tensors_of(saved)
        assert shapes["score.weight"] == [1, 32] and "score.bias" not in shapes
        assert all(name.startswith("model.") or name == "score.weight" for name in shapes)
        assert {path.suffix for path in saved.iterdir()} <= {".safetensors", ".json", ".jinja"}

    def test_the_card_says_where_it_came_from_and_what_it_is_given(self, rm: RewardModel, tmp_path: Path) -> None:
        card = json.loads((rm.save(tmp_path / "saved", card={"accuracy": 0.7}) / CARD).read_text())
        assert card == {
            "plaudit": __version__,
            "source": str(rm.checkpoint.folder),
            "score_position": "last",
            "accuracy": 0.7,
        }
        again = load(tmp_path / "saved")
        assert json.loads((again.save(tmp_path / "again") / CARD).read_text())["accuracy"] == 0.7, "the card travels"

    def test_openrlhfs_prefix_mean_and_std_are_kept(self, folder: Path, tmp_path: Path) -> None:
        source = load(folder).save(tmp_path / "openrlhf", head_prefix="value_head")
        config = read_config(source) | {"mean": 0.25, "std": 1.5}
        (source / "config.json").write_text(json.dumps(config))
        rm = load(source)
        assert rm.score(QUESTION, ANSWERS) == pytest.approx(load(folder).score(QUESTION, ANSWERS), rel=1e-5), "raw"
        assert any("mean 0.25, std 1.5" in note for note in rm.notes)
        saved = rm.save(tmp_path / "saved")
        assert "value_head.weight" in tensors_of(saved) and "score.weight" not in tensors_of(saved)
        assert {k: read_config(saved)[k] for k in ("value_head_prefix", "mean", "std")} == {
            "value_head_prefix": "value_head",
            "mean": 0.25,
            "std": 1.5,
        }
        plain = rm.save(tmp_path / "plain", head_prefix="score")
        assert "score.weight" in tensors_of(plain) and read_config(plain)["value_head_prefix"] == "score"
        assert load(plain).score(QUESTION, ANSWERS) == pytest.approx(rm.score(QUESTION, ANSWERS), rel=1e-5)

    def test_an_encoders_head_keeps_the_name_that_its_maker_gave_it(self, tmp_path: Path) -> None:
        rm = load(save_model(tmp_path / "bert", "modernbert"))
        with pytest.raises(ConfigError, match=r"head_prefix 'score' came, but ModernBert.* has it in 'classifier'"):
            rm.save(tmp_path / "saved", head_prefix="score")
        rm.hf.config.value_head_prefix = "left from elsewhere"
        saved = rm.save(tmp_path / "saved", head_prefix="classifier")
        assert "value_head_prefix" not in read_config(saved)
        assert load(saved).score(QUESTION, ANSWERS) == pytest.approx(rm.score(QUESTION, ANSWERS), rel=1e-5)


class TestTokenizer:
    def save_with(self, rm: RewardModel, tokenizer: Any, folder: Path) -> tuple[Any, Any]:
        """The tokenizer and the configuration of the folder that is saved with this tokenizer."""
        from transformers import AutoTokenizer

        rm.tokenizer = tokenizer
        saved = rm.save(folder)
        return AutoTokenizer.from_pretrained(saved), read_config(saved)

    def test_a_pad_that_can_end_a_conversation_is_replaced(self, rm: RewardModel, tmp_path: Path) -> None:
        for pad in (None, "</s>"):
            mine = make_tokenizer(pad=pad)
            written, config = self.save_with(rm, mine, tmp_path / str(pad))
            assert written.pad_token == "<pad>" and config["pad_token_id"] == written.pad_token_id == 0
            assert mine.pad_token == pad, "the tokenizer in memory is not changed"

    def test_a_pad_that_the_model_has_no_row_for_is_replaced(self, rm: RewardModel, tmp_path: Path) -> None:
        mine = make_tokenizer(pad=None)
        mine.add_special_tokens({"pad_token": "<more>"})
        assert mine.pad_token_id >= rm.hf.get_input_embeddings().num_embeddings
        written, config = self.save_with(rm, mine, tmp_path / "saved")
        assert written.pad_token == "<pad>" and config["pad_token_id"] == 0

    def test_the_template_that_was_used_is_written_its_date_frozen(self, rm: RewardModel, tmp_path: Path) -> None:
        dated = "{{ strftime_now('%d %b %Y') }} " + TEMPLATE
        written, _ = self.save_with(rm, make_tokenizer(dated), tmp_path / "saved")
        assert "26 Jul 2024" in written.chat_template and "strftime_now" not in written.chat_template

    @pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }}"])
    def test_one_without_a_template_that_can_be_used_is_written_as_it_is(
        self, template: str | None, rm: RewardModel, tmp_path: Path
    ) -> None:
        written, config = self.save_with(rm, make_tokenizer(template), tmp_path / "saved")
        assert written.chat_template == template and config["pad_token_id"] == 0

    def test_embeddings_of_an_unknown_kind_are_no_obstacle(
        self, rm: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rm.hf, "get_input_embeddings", lambda: None)
        assert self.save_with(rm, rm.tokenizer, tmp_path / "saved")[0].pad_token == "<pad>"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestWhole:
    def test_a_model_that_is_there_is_replaced(self, rm: RewardModel, tmp_path: Path) -> None:
        target = rm.save(tmp_path / "model")
        before = rm.score(QUESTION, ANSWERS)
        (target / "old-file.txt").write_text("of the old one")
        with torch.no_grad():
            rm.head.weight.mul_(2)
        assert rm.save(target) == target
        assert not (target / "old-file.txt").exists() and names(tmp_path) == {"model"}
        assert load(target).score(QUESTION, ANSWERS) == pytest.approx(np.multiply(before, 2), rel=1e-5)

    def test_an_empty_folder_is_filled(self, rm: RewardModel, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        rm.save(tmp_path / "model")
        assert load(tmp_path / "model").score(QUESTION, ANSWERS) == pytest.approx(rm.score(QUESTION, ANSWERS))

    def test_what_is_no_model_is_not_replaced(self, rm: RewardModel, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
        (tmp_path / "file").write_text("more work")
        with pytest.raises(ModelError, match="a folder that is not a model is there; name a new one, or remove it"):
            rm.save(tmp_path / "thesis")
        with pytest.raises(ModelError, match="a file is there, a folder for the model was needed"):
            rm.save(tmp_path / "file")
        assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
        assert names(tmp_path) == {"thesis", "file"}

    @pytest.mark.parametrize("step", ["weights", "tokenizer", "first move", "second move"])
    @pytest.mark.parametrize("is_there", [True, False])
    def test_a_failure_at_any_step_leaves_what_was_there(
        self, rm: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_there: bool
    ) -> None:
        target = tmp_path / "model"
        if is_there:
            rm.save(target)
        before = {path.name: path.read_bytes() for path in target.iterdir()} if is_there else {}
        moves = []

        def fail(*args: Any, **options: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        def rename(self: Path, there: Path, original: Any = Path.rename) -> Any:
            moves.append(there)
            wanted = 1 if step == "first move" or not is_there else 2
            return fail() if len(moves) == wanted else original(self, there)

        if step == "weights":
            monkeypatch.setattr(type(rm.hf), "save_pretrained", fail)
        elif step == "tokenizer":
            monkeypatch.setattr(type(rm.tokenizer), "save_pretrained", fail)
        else:
            monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(OSError, match="No space left"):
            rm.save(target)
        monkeypatch.undo()
        assert names(tmp_path) == ({"model"} if is_there else set())
        if is_there:
            assert {path.name: path.read_bytes() for path in target.iterdir()} == before
        rm.save(target)
        assert load(target).score(QUESTION, ANSWERS) == pytest.approx(rm.score(QUESTION, ANSWERS))

    def test_what_a_killed_save_left_is_swept_away(self, rm: RewardModel, tmp_path: Path) -> None:
        rm.save(tmp_path / ".model.01234567.partial")
        rm.save(tmp_path / ".model.89abcdef.replaced")
        rm.save(tmp_path / "model")
        assert names(tmp_path) == {"model"}

    def test_saved_files_get_the_mode_that_the_umask_gives(self, rm: RewardModel, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            rm.save(tmp_path / "model")
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
        assert "model.safetensors" in modes and set(modes.values()) == {0o640}, modes
        assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o750


class TestClosing:
    """A template that ends an answer with nothing gets EOS from us, and in a saved folder from itself."""

    OPEN = "{% for m in messages %}\n[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"

    def test_the_saved_template_gives_everyone_the_tokens_that_are_scored(
        self, rm: RewardModel, tmp_path: Path
    ) -> None:
        from transformers import AutoTokenizer

        for n, template in enumerate((self.OPEN, "\n" + self.OPEN + "\n   ", "  {%- set x = 1 -%}" + self.OPEN)):
            rm.tokenizer = make_tokenizer(template)
            before = rm.score(QUESTION, ANSWERS)
            renderer = Renderer(rm.tokenizer)
            [wanted] = renderer.render([Group(prompt=QUESTION, completions=(Completion(content=ANSWERS[0]),))])
            saved = rm.save(tmp_path / str(n))
            tokenizer = AutoTokenizer.from_pretrained(saved)
            turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWERS[0]}]
            ids = tokenizer.apply_chat_template(turns, return_dict=False)
            assert wanted.ids[0] is not None and ids == wanted.ids[0].tolist() and ids[-1] == tokenizer.eos_token_id
            again = load(saved)
            assert again.score(QUESTION, ANSWERS) == pytest.approx(before, rel=1e-6)
            assert not any("EOS" in note for note in Renderer(again.tokenizer).notes), "nothing is left to append"
            twice = again.save(tmp_path / f"{n}-again")
            assert AutoTokenizer.from_pretrained(twice).chat_template == tokenizer.chat_template

    def test_an_answer_that_ends_with_eos_gets_no_second_one_and_a_generation_prompt_none(
        self, rm: RewardModel, tmp_path: Path
    ) -> None:
        from transformers import AutoTokenizer

        rm.tokenizer = make_tokenizer(self.OPEN)
        tokenizer = AutoTokenizer.from_pretrained(rm.save(tmp_path / "saved"))
        text = tokenizer.apply_chat_template([{"role": "assistant", "content": "w30</s>"}], tokenize=False)
        assert text == "[assistant] w30</s>"
        question = [{"role": "user", "content": "w30"}]
        assert tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True) == "[user] w30"

    def test_one_that_closes_its_answers_is_left_alone(self, rm: RewardModel, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        assert AutoTokenizer.from_pretrained(rm.save(tmp_path / "saved")).chat_template == TEMPLATE
