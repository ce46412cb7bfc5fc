"""consumers.py: each consumer's verdict on a folder, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plaudit.consumers import Consumer, check_folder, encode_for_openrlhf, encode_for_verl
from plaudit.lora import LoraSettings, attach_lora, save_adapter
from plaudit.score import RewardModel
from plaudit.specimen import Sample, draw_starter_sample, score_exactly, score_sample
from speller import make_tokenizer, save_speller
from stranger import ask_nearby
from tiny import save_model, widen

NAMES = ["transformers", "transformers 4", "pipeline", "TRL", "OpenRLHF", "vLLM", "SGLang", "verl", "CrossEncoder"]
CHATML = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>\n{% endfor %}"


@pytest.fixture(autouse=True)
def nearby(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    return ask_nearby(monkeypatch)


@pytest.fixture
def net(tmp_path: Path) -> RewardModel:
    return RewardModel.load(save_speller(tmp_path / "from", kind="classifier", context=2048), dtype="float32")


def check(net: RewardModel, folder: Path, sample: Sample | None = None) -> dict[str, Consumer]:
    sample = sample or draw_starter_sample(net)
    return {consumer.name: consumer for consumer in check_folder(folder, sample, score_sample(net, sample))}


def change(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text()) | changes
    gone = [key for key, value in changes.items() if value is None]
    (folder / "config.json").write_text(json.dumps({key: x for key, x in config.items() if key not in gone}))
    return folder


def test_what_we_write_is_fine_for_everyone(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, net.save(tmp_path / "model"))
    assert list(found) == NAMES and all(consumer.ok for consumer in found.values()), found
    assert [name for name in NAMES if found[name].how == "ran"] == ["transformers", "pipeline"]
    assert {found[name].how for name in NAMES} == {"ran", "by convention"}
    for name in set(NAMES) - {"transformers 4"}:
        exact, own = found[name].difference, found[name].own_difference
        assert exact is not None and exact < 1e-4 and own is not None, found[name]
        if name in ("transformers", "pipeline", "TRL", "CrossEncoder"):
            assert (found[name].own_dtype, own) == ("float32", exact)
    assert found["OpenRLHF"].own_dtype == "bfloat16" and (found["OpenRLHF"].own_difference or 0) > 1e-4
    assert found["vLLM"].own_dtype == "float16" == found["verl"].own_dtype
    assert found["transformers"].why.startswith("all tensors in place, 8 rows, scores to ")
    assert "start it with --dtype float32" in found["vLLM"].why
    assert "leave reward.normalize_enable off" in found["OpenRLHF"].why


def test_openrlhf_is_told_of_mean_and_std(net: RewardModel, tmp_path: Path) -> None:
    card = {"normalisation": {"mean": 0.25, "std": 2.0, "count": 9, "source": "some data"}}
    folder = net.save(tmp_path / "model", card=card)
    assert "(score - 0.25) / 2 when told to normalise" in check(net, folder)["OpenRLHF"].why
    change(folder, std=None)
    found = check(net, folder)["OpenRLHF"]
    assert not found.ok and "it reads both or neither" in found.why


def test_a_head_of_another_name_is_for_openrlhf_alone(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, net.save(tmp_path / "model", head_prefix="value_head"))
    assert [name for name in NAMES if found[name].ok] == ["OpenRLHF"]
    assert "head 'value_head'" in found["OpenRLHF"].why
    assert found["vLLM"].why == "its head is value_head.weight, and score.weight is looked for"
    assert found["TRL"].why == "a tensor is missing (score.weight)"


@pytest.mark.parametrize(
    ("changes", "who", "why"),
    [
        ({"problem_type": None}, "vLLM", "without problem_type regression it puts a sigmoid on the score"),
        ({"problem_type": None}, "pipeline", "its scores are others ("),
        ({"architectures": ["RewardModel"]}, "vLLM", "its architecture is RewardModel, and only *ForSequenceClass"),
        (
            {"architectures": ["RewardModel"]},
            "SGLang",
            "it has no class for RewardModel; those with a score are Llama, ",
        ),
        (
            {"id2label": None, "label2id": None, "num_labels": None},
            "SGLang",
            "its config.json says 2 labels (id2label)",
        ),
    ],
)
def test_a_convention_that_is_broken_is_named(
    changes: dict[str, Any], who: str, why: str, net: RewardModel, tmp_path: Path
) -> None:
    found = check(net, change(net.save(tmp_path / "model"), **changes))[who]
    assert not found.ok and why in found.why


def test_what_only_servers_mind_is_no_fault_to_others(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, change(net.save(tmp_path / "model"), problem_type=None))
    assert [name for name in NAMES if not found[name].ok] == ["pipeline", "vLLM", "verl"]


def test_a_bos_that_would_come_twice_is_said(net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer("<s>" + make_tokenizer().chat_template)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    net.tokenizer = tokenizer
    found = check(net, net.save(tmp_path / "model"))
    assert found["pipeline"].ok and "pass add_special_tokens=False, or BOS comes twice" in found["pipeline"].why
    assert "send messages, not rendered text" in found["vLLM"].why and found["TRL"].ok


def test_without_a_template_a_pipeline_does_not_know_how_to_render(net: RewardModel, tmp_path: Path) -> None:
    net.tokenizer = make_tokenizer(None)
    found = check(net, net.save(tmp_path / "model"))
    assert found["transformers"].ok and found["OpenRLHF"].ok
    assert not found["TRL"].ok and "has no chat template" in found["TRL"].why
    assert "no conversation was tried" in found["OpenRLHF"].why and found["OpenRLHF"].difference is None


def test_an_encoder_is_for_those_that_have_its_class(tmp_path: Path) -> None:
    net = RewardModel.load(save_model(tmp_path / "from", "modernbert"), dtype="float32")
    found = check(net, net.save(tmp_path / "model"))
    assert found["transformers"].ok and found["vLLM"].ok and not found["SGLang"].ok and not found["OpenRLHF"].ok
    assert not found["transformers 4"].ok and "layer_types" in found["transformers 4"].why


def test_a_family_that_transformers_has_no_class_for(tmp_path: Path) -> None:
    net = RewardModel.load(save_model(tmp_path / "lm", "granite", kind="lm"), dtype="float32", new_head=True)
    widen(net.hf)
    found = check(net, net.save(tmp_path / "model"))
    assert found["transformers"].ok and found["vLLM"].ok and not found["SGLang"].ok


def test_an_adapter_is_for_peft(net: RewardModel, tmp_path: Path) -> None:
    attach_lora(net, LoraSettings(rank=2))
    found = check(net, save_adapter(net, tmp_path / "adapter"))
    assert [name for name, consumer in found.items() if consumer.ok] == ["transformers + peft", "transformers alone"]
    assert found["vLLM"].why == "it takes whole models; export this adapter with --merge"


def test_trl_and_pipelines_that_give_other_scores_are_not_fine(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plaudit import consumers

    ask: Callable[..., Any] = consumers.Witness.ask

    def lie(self: Any, question: Any) -> Any:
        answer = ask(self, question)
        said = answer["ways"]["transformers"]
        said["trl"]["scores"][0] += 1.0
        said["pipeline"] = {"error": "ValueError: no pipeline"}
        return answer

    monkeypatch.setattr(consumers.Witness, "ask", lie)
    found = check(net, net.save(tmp_path / "model"))
    assert not found["TRL"].ok and found["TRL"].why.startswith("its scores are others (")
    assert (found["pipeline"].ok, found["pipeline"].why) == (False, "ValueError: no pipeline")
    assert found["transformers"].ok


def test_openrlhf_reads_before_the_templates_last_line_break(net: RewardModel, tmp_path: Path) -> None:
    # Random weights judge the two places differently; the check has to see it, although ours are exact everywhere.
    net.tokenizer = make_tokenizer(CHATML)
    found = check(net, net.save(tmp_path / "model"))
    assert not found["OpenRLHF"].ok and (found["OpenRLHF"].difference or 0) > 0.1
    assert "its scores are others, by up to" in found["OpenRLHF"].why and "it reads at EOS" in found["OpenRLHF"].why
    assert [name for name in NAMES if not found[name].ok] == ["OpenRLHF"]


def test_a_small_difference_at_eos_is_the_same_judgement(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plaudit import consumers

    net.tokenizer = make_tokenizer(CHATML)
    monkeypatch.setattr(consumers, "MOVED", 100.0)
    found = check(net, net.save(tmp_path / "model"))["OpenRLHF"]
    assert found.ok and "its scores are others, by up to" in found.why, "it is said all the same"


def test_each_consumer_makes_its_own_tokens() -> None:
    tokenizer = make_tokenizer()
    text = "<s><|user|>ab</s>\n\n"
    ids = tokenizer("<s><|user|>ab</s>", add_special_tokens=False)["input_ids"]
    assert encode_for_openrlhf(tokenizer, text) == ids
    open_end = tokenizer("ab", add_special_tokens=False)["input_ids"]
    space, eos = tokenizer(" </s>", add_special_tokens=False)["input_ids"]
    assert encode_for_openrlhf(tokenizer, "ab\n") == [*open_end, space, eos]
    line = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert encode_for_verl(tokenizer, text) == [*ids[1:], *line, *line]
    assert encode_for_verl(tokenizer, "ab") == open_end


def test_verl_cuts_bos_off(net: RewardModel, tmp_path: Path) -> None:
    net.tokenizer = make_tokenizer("<s>" + make_tokenizer().chat_template)
    found = check(net, net.save(tmp_path / "model"))
    assert "for verl, set bos_token to null" in found["verl"].why and (found["verl"].difference or 0) > 0.01
    assert found["vLLM"].ok and "bos_token" not in found["vLLM"].why


def test_a_precision_that_loses_the_judgement_is_no_yes(
    net: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plaudit import consumers

    monkeypatch.setattr(consumers, "MOVED", 1e-4)
    found = check(net, net.save(tmp_path / "model"))
    assert not found["OpenRLHF"].ok and found["OpenRLHF"].why.startswith("at bfloat16 its scores are others")
    assert found["TRL"].ok, "a float32 folder is loaded as that"


def test_a_folder_in_bfloat16_is_also_asked_in_it(tmp_path: Path) -> None:
    net = RewardModel.load(save_speller(tmp_path / "from", kind="classifier", context=2048), dtype="bfloat16")
    sample = draw_starter_sample(net)
    scores, computed_in = score_exactly(net, sample)
    found = {c.name: c for c in check_folder(net.save(tmp_path / "model"), sample, scores, dtype=computed_in)}
    for name in ("transformers", "pipeline", "TRL", "OpenRLHF", "vLLM", "SGLang", "CrossEncoder"):
        exact, own = found[name].difference, found[name].own_difference
        assert found[name].own_dtype == "bfloat16" and exact is not None and own is not None
        assert exact < 1e-3 < own, found[name]


def test_vllm_is_a_yes_only_where_it_was_tried(net: RewardModel, tmp_path: Path) -> None:
    folder = net.save(tmp_path / "model")
    for architecture, ok, why in (
        (
            "Gemma3TextForSequenceClassification",
            True,
            '--hf-overrides \'{"architectures": ["Gemma3ForCausalLM"]}\' --conv',
        ),
        ("Qwen3_5TextForSequenceClassification", False, "vLLM 0.32 fails to load Qwen3_5TextForSeq"),
        ("SmolLM3ForSequenceClassification", None, "not tested: nobody has tried SmolLM3ForSequenceClassification"),
    ):
        found = check(net, change(folder, architectures=[architecture]))
        assert found["vLLM"].ok is ok and why in found["vLLM"].why
        assert found["verl"].ok is ok, "it asks a vLLM server"


def test_cross_encoder_squashes_unless_the_folder_says_otherwise(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, change(net.save(tmp_path / "model"), sentence_transformers=None))["CrossEncoder"]
    assert not found.ok and "pass activation_fn=torch.nn.Identity()" in found.why


def test_transformers_4_needs_its_own_places(net: RewardModel, tmp_path: Path) -> None:
    found = check(net, change(net.save(tmp_path / "model"), rope_theta=None))["transformers 4"]
    assert not found.ok and "config.json lacks what transformers 4 reads (rope_theta)" in found.why


def test_a_folder_without_a_pad_token_can_be_looked_at(net: RewardModel, tmp_path: Path) -> None:
    folder = change(net.save(tmp_path / "model"), pad_token_id=None)
    words = json.loads((folder / "tokenizer_config.json").read_text())
    del words["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    found = check(net, folder)
    assert found["OpenRLHF"].ok, found["OpenRLHF"]
    assert found["pipeline"].ok and not found["transformers"].ok and "a padded batch fails" in found["transformers"].why


def test_a_pad_that_is_eos_does_not_matter_to_openrlhf(net: RewardModel, tmp_path: Path) -> None:
    # It reads by the attention mask; transformers looks for the last token that is not the pad.
    folder = change(net.save(tmp_path / "model"), pad_token_id=3)
    words = json.loads((folder / "tokenizer_config.json").read_text()) | {"pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    found = check(net, folder)
    assert found["OpenRLHF"].ok, found["OpenRLHF"]
    assert not found["transformers"].ok and "its pad token (3) ends a conversation" in found["transformers"].why
    assert not found["TRL"].ok
