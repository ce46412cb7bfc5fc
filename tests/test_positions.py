"""Folders without a plaudit.json are read where the tool reads them that made them.

The slow twins are plain transformers, whose `ForSequenceClassification` reads the last token that is not the pad, and
OpenRLHF's convention written out: the template's text without trailing line breaks, EOS after a space if it is missing,
no special tokens added, padding on the left, the last token that is attended to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plaudit.cli import app
from plaudit.errors import ConfigError
from plaudit.export import export_model
from plaudit.render import RenderSettings
from plaudit.score import RewardModel, ScoreSettings
from schooling import fit, graded_rows, settle, write_rows
from tiny import EOS, PAD, TEMPLATE, save_model
from tiny import make_tokenizer as make_one_ended
from two_ends import TEMPLATE as TWO_ENDED
from two_ends import make_tokenizer

PROMPT, ANSWERS = "w20 w21 w22", ["w30 w31 w40", "w50", "w60 w61 w62 w63"]
OTHER_CLOSE = TWO_ENDED.replace("</s>", "<|system|>")
"""As Gemma's: the closing token is not EOS, and a line break follows."""


def save_foreign(folder: Path, *, template: str | None, pad_id: int | None, **config: Any) -> Path:
    """A reward model as another tool leaves it: no plaudit.json."""
    save_model(folder, pad_token_id=pad_id)
    make = make_one_ended if template == TEMPLATE else make_tokenizer
    tokenizer = make(template)
    tokenizer.pad_token = None if pad_id is None else tokenizer.convert_ids_to_tokens(pad_id)
    tokenizer.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": pad_id} | config))
    assert not (folder / "plaudit.json").exists()
    return folder


def conversation(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": answer}]


def ids_of(folder: Path, *, plain: bool = False) -> list[list[int]]:
    """What a user of transformers scores: the chat template; of plain text, the text and EOS."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if plain:
        return [[*tokenizer(f"{PROMPT} {answer}")["input_ids"], EOS] for answer in ANSWERS]
    found = [tokenizer.apply_chat_template(conversation(a), return_dict=False) for a in ANSWERS]
    return [[int(i) for i in ids] for ids in found]


def by_transformers(folder: Path, rows: list[list[int]]) -> list[float]:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [float(model(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]


def by_last_token(folder: Path, rows: list[list[int]]) -> list[float]:
    """The head at the very last token, whatever it is."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        hidden = [model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        return [float(model.score(x)) for x in hidden]


def by_openrlhf(folder: Path, texts: list[str], prefix: str) -> list[float]:
    """OpenRLHF's convention; its own code needs engines that are not here."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [text.rstrip("\n") for text in texts]
    texts = [t if t.endswith(tokenizer.eos_token) else f"{t} {tokenizer.eos_token}" for t in texts]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    mask = batch["attention_mask"]
    places = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    with torch.inference_mode():
        hidden = backbone(input_ids=batch["input_ids"], attention_mask=mask, position_ids=places).last_hidden_state
        return (hidden[:, -1] @ weights[f"{prefix}.weight"][0]).tolist()


def load(folder: Path, position: str | None = None) -> RewardModel:
    return RewardModel.load(folder, dtype="float32", device="cpu", score_position=position)


def ours(folder: Path, *, position: str | None = None, plain: bool = False) -> list[float]:
    net, space = load(folder, position), " " if plain else ""
    settings = ScoreSettings(render=RenderSettings(plain=plain))
    scores = net.score(PROMPT + space, ANSWERS, settings=settings)
    assert None not in scores
    return [float(s or 0.0) for s in scores]


def close(scores: list[float]) -> Any:
    return pytest.approx(scores, rel=1e-5, abs=1e-5)


FOLDERS = {
    "pad is EOS": (TEMPLATE, EOS),
    "pad is another token": (TEMPLATE, PAD),
    "no pad": (TEMPLATE, None),
    "ChatML, pad is EOS": (TWO_ENDED, EOS),
    "ChatML, no pad": (TWO_ENDED, None),
    "no template, pad is EOS": (None, EOS),
}


class TestTransformers:
    @pytest.mark.parametrize("plain", [False, True])
    @pytest.mark.parametrize("name", FOLDERS)
    def test_a_foreign_folder_is_read_where_transformers_reads(self, tmp_path: Path, name: str, plain: bool) -> None:
        template, pad_id = FOLDERS[name]
        folder = save_foreign(tmp_path / "foreign", template=template, pad_id=pad_id)
        plain = plain or template is None
        rows = ids_of(folder, plain=plain)
        theirs = by_transformers(folder, rows)
        assert ours(folder, plain=plain) == close(theirs)
        moved = [abs(a - b) for a, b in zip(theirs, by_last_token(folder, rows), strict=True)]
        assert (max(moved) > 0.05) is (rows[0][-1] == pad_id), "the two positions are far apart, or the same"
        assert ours(folder, plain=plain, position="last") == close(by_last_token(folder, rows))

    def test_a_note_names_the_position_and_how_to_choose_another(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "chat", template=TEMPLATE, pad_id=EOS)
        [note] = load(folder).notes
        assert note == (
            "config.json pads with '</s>', which a text ends with: transformers reads the score at the token before "
            "it, and so it is read here (score position before_pad; --score-position last reads the last token)"
        )
        [note] = load(save_foreign(tmp_path / "chatml", template=TWO_ENDED, pad_id=EOS)).notes
        assert "which plain text ends with" in note
        assert load(save_foreign(tmp_path / "other", template=TEMPLATE, pad_id=PAD)).notes == []
        assert load(folder, "last").notes == []

    def test_a_pad_that_is_no_token_changes_nothing(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "foreign", template=TEMPLATE, pad_id=None, pad_token_id=-1)
        assert ours(folder) == close(by_last_token(folder, ids_of(folder)))

    def test_an_answer_that_is_nothing_but_pads_is_read_at_its_first_token(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "foreign", template=None, pad_id=EOS)
        settings = ScoreSettings(render=RenderSettings(plain=True))
        [score] = load(folder).score("", ["</s></s>"], settings=settings)
        assert score == pytest.approx(by_transformers(folder, [[EOS, EOS]])[0], abs=1e-5)

    def test_training_goes_on_at_the_last_token_and_says_so(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "foreign", template=TEMPLATE, pad_id=EOS)
        data = write_rows(tmp_path / "pairs.jsonl", graded_rows(48))
        report, _, said = fit(settle(folder, data, tmp_path / "run", "train.max_steps=2"))
        assert "training reads the score at the last token instead (it was before_pad)" in said
        model = Path(report["model"])
        assert json.loads((model / "plaudit.json").read_text())["score_position"] == "last"
        assert ours(model) == close(by_transformers(model, ids_of(model)))

    def test_a_language_model_is_trained_without_a_word_of_its_pad(self, tmp_path: Path) -> None:
        save_model(tmp_path / "lm", kind="causal", pad_token_id=EOS)
        net = RewardModel.load(tmp_path / "lm", dtype="float32", device="cpu", new_head=True)
        assert net.position.name == "last" and not any("position" in note for note in net.notes)


class TestOpenRLHF:
    @pytest.mark.parametrize("template", [TWO_ENDED, TEMPLATE, OTHER_CLOSE], ids=["chatml", "eos", "another token"])
    def test_its_layout_is_read_where_it_reads(self, tmp_path: Path, template: str) -> None:
        from transformers import AutoTokenizer

        folder = save_foreign(tmp_path / "rlhf", template=template, pad_id=PAD, value_head_prefix="score")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [tokenizer.apply_chat_template(conversation(a), tokenize=False) for a in ANSWERS]
        theirs = by_openrlhf(folder, texts, "score")
        assert ours(folder) == close(theirs)
        net = load(folder)
        assert any("score position eos" in note for note in net.notes)
        last = by_last_token(folder, ids_of(folder))
        assert (ours(folder, position="last") == close(theirs)) is (template == TEMPLATE)
        assert ours(folder, position="last") == close(last)

    def test_plain_text_gets_a_space_and_eos_and_no_special_tokens(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "rlhf", template=None, pad_id=PAD, value_head_prefix="score")
        theirs = by_openrlhf(folder, [f"{PROMPT} {answer}" for answer in ANSWERS], "score")
        assert ours(folder, plain=True) == close(theirs)

    def test_what_plaudit_saved_is_read_where_it_says(self, tmp_path: Path) -> None:
        """Our own folders have a value_head_prefix too."""
        folder = save_foreign(tmp_path / "foreign", template=TWO_ENDED, pad_id=PAD)
        saved = load(folder).save(tmp_path / "saved")
        assert json.loads((saved / "config.json").read_text())["value_head_prefix"] == "score"
        assert load(saved).position.name == "last"
        assert ours(saved) == close(by_last_token(folder, ids_of(folder)))


SAVED = {
    "pad is EOS": (TEMPLATE, EOS, {}, None, "before_pad"),
    "ChatML, pad is EOS": (TWO_ENDED, EOS, {}, None, "before_pad"),
    "OpenRLHF": (TWO_ENDED, PAD, {"value_head_prefix": "score"}, None, "eos"),
    "OpenRLHF, another close": (OTHER_CLOSE, PAD, {"value_head_prefix": "score"}, None, "eos"),
    "closing": (TWO_ENDED, PAD, {}, "closing", "closing"),
    "closing, nothing to cut": (TEMPLATE, PAD, {}, "closing", "closing"),
    "last": (TWO_ENDED, PAD, {}, None, "last"),
}


class TestSaving:
    @pytest.mark.parametrize("name", SAVED)
    def test_the_saved_template_ends_where_the_score_is_read(self, tmp_path: Path, name: str) -> None:
        """Then transformers, TRL, vLLM and OpenRLHF, which read the last token, all get the score."""
        template, pad_id, config, asked, position = SAVED[name]
        folder = save_foreign(tmp_path / "foreign", template=template, pad_id=pad_id, **config)
        scores = ours(folder, position=asked)
        exported = export_model(str(folder), tmp_path / "saved").published if asked is None else None
        saved = tmp_path / "saved"
        if exported is None:
            load(folder, asked).save(saved)
        else:
            assert exported.proof is not None, "a fresh process of transformers rendered and scored it"
        card = json.loads((saved / "plaudit.json").read_text())
        assert card["score_position"] == position and card.get("score_pad_token") == (
            "</s>" if position == "before_pad" else None
        )
        assert by_last_token(saved, ids_of(saved)) == close(scores)
        assert by_transformers(saved, ids_of(saved)) == close(scores)
        assert ours(saved) == close(scores)
        assert load(load(saved).save(tmp_path / "again")).position == load(saved).position
        assert ours(tmp_path / "again") == close(scores)
        plain = [ours(path, position=p, plain=True) for path, p in ((folder, asked), (saved, None))]
        assert plain[1] == close(plain[0])

    def test_a_generation_prompt_is_left_alone(self, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        template = TWO_ENDED + "{% if add_generation_prompt %}<|assistant|> \n{% endif %}"
        folder = save_foreign(tmp_path / "foreign", template=template, pad_id=PAD)
        load(folder, "closing").save(tmp_path / "saved")
        for is_asked in (True, False):
            texts = [
                AutoTokenizer.from_pretrained(path).apply_chat_template(
                    conversation("w30"), tokenize=False, add_generation_prompt=is_asked
                )
                for path in (folder, tmp_path / "saved")
            ]
            assert texts[1] == (texts[0] if is_asked else texts[0].rstrip())

    def test_findings_in_a_foreign_folder_do_not_move_the_position(self, tmp_path: Path) -> None:
        from plaudit.adjust import store_findings

        folder = save_foreign(tmp_path / "foreign", template=TEMPLATE, pad_id=EOS)
        before = ours(folder)
        store_findings(folder, {"calibration": {"temperature": 1.0}})
        assert (folder / "plaudit.json").is_file() and ours(folder) == close(before)


class TestChoosing:
    def test_what_is_no_position_is_refused(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "foreign", template=TEMPLATE, pad_id=None)
        with pytest.raises(ConfigError, match="expected one of last, closing, eos, before_pad, got 'first'"):
            load(folder, "first")
        with pytest.raises(ConfigError, match="expected a model with a pad token"):
            load(folder, "before_pad")

    def test_an_encoder_has_no_position(self, tmp_path: Path) -> None:
        folder = save_model(tmp_path / "encoder", "modernbert")
        assert load(folder).position.name == "last"
        with pytest.raises(ConfigError, match="is an encoder, which reads no single token"):
            load(folder, "closing")

    def test_the_command_line_chooses_and_a_job_of_another_position_begins_anew(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = save_foreign(tmp_path / "foreign", template=TWO_ENDED, pad_id=PAD)
        row = {"prompt": PROMPT, "completions": ANSWERS}
        data, out = write_rows(tmp_path / "rows.jsonl", [row]), tmp_path / "out.jsonl"
        for position in (None, "closing", None):
            argv = ["score", str(folder), str(data), "-o", str(out), "--dtype", "float32", "--device", "cpu"]
            argv += ["--score-position", position] if position else []
            assert app.main(argv) == 0
            scores = json.loads(out.read_text())["scores"]
            assert scores == close(ours(folder, position=position))
        capsys.readouterr()

    def test_cutting_on_the_right_keeps_the_token_that_is_read(self, tmp_path: Path) -> None:
        folder = save_foreign(tmp_path / "foreign", template=TWO_ENDED, pad_id=PAD)
        from plaudit.render import Overlength, Renderer
        from plaudit.templates import Position, ScorePosition

        tokenizer = load(folder).tokenizer
        from plaudit.group import pair

        group = pair(PROMPT, " ".join(["w30"] * 40), "w31")
        for position in (Position(), Position(name=ScorePosition.CLOSING), Position(name=ScorePosition.EOS)):
            settings = RenderSettings(max_length=16, overlength=Overlength.RIGHT)
            [rendered] = Renderer(tokenizer, settings, position=position).render([group])
            ids = rendered.ids[0]
            assert ids is not None and len(ids) == 16
            closing = np.flatnonzero(ids == EOS)[-1]
            assert closing == (14 if position.name is ScorePosition.LAST else 15)
