"""specimen.py: rows that a net and a folder are compared on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.errors import DataError
from plaudit.formats import read_groups
from plaudit.group import Completion, Group, Message
from plaudit.lora import LoraSettings, attach_lora
from plaudit.render import Renderer, RenderSettings
from plaudit.score import RewardModel
from plaudit.specimen import STARTER, draw_sample, draw_starter_sample, score_exactly, score_sample
from speller import TEMPLATE, make_tokenizer, save_speller

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speller(tmp_path_factory.mktemp("speller") / "reward", kind="classifier", context=2048)


@pytest.fixture
def net(folder: Path) -> RewardModel:
    return RewardModel.load(folder, dtype="float32", device="cpu")


def group(*answers: str, prompt: Any = "a question") -> Group:
    return Group(prompt=prompt, completions=tuple(Completion(content=answer) for answer in answers))


def system(text: str, question: str = "a question") -> tuple[Message, ...]:
    return ({"role": "system", "content": text}, {"role": "user", "content": question})


class TestDrawing:
    def test_short_to_long_and_the_same_again(self, net: RewardModel) -> None:
        groups = list(read_groups(STARTER))
        sample = draw_sample(groups, net)
        sizes = [len(row.ids) for row in sample.rows]
        every = [len(ids) for r in Renderer(net.tokenizer).render(groups) for ids in r.ids if ids is not None]
        assert sizes == sorted(sizes) and len(sizes) == 8
        assert (sizes[0], sizes[-1]) == (min(every), max(every))
        assert draw_sample(iter(groups), net) == sample and sample.num_tokens == sum(sizes)

    def test_rows_are_those_that_the_renderer_gives(self, net: RewardModel) -> None:
        [row] = draw_sample([group("yes", "")], net).rows
        [rendered] = Renderer(net.tokenizer).render([group("yes")])
        assert rendered.ids[0] is not None and list(row.ids) == rendered.ids[0].tolist()
        assert row.messages == ({"role": "user", "content": "a question"}, {"role": "assistant", "content": "yes"})
        assert row.text is None and not row.has_system

    def test_with_a_system_message_and_without_where_there_are_both(self, net: RewardModel) -> None:
        plain = [group("x" * n) for n in range(1, 40)]
        rare = group("x" * 20, prompt=system("be brief"))
        for groups in ([*plain, rare], [*(group("x" * n, prompt=system("s")) for n in range(1, 40)), group("x")]):
            sample = draw_sample(groups, net)
            assert {row.has_system for row in sample.rows} == {True, False} and len(sample.rows) == 8

    def test_the_same_row_comes_once(self, net: RewardModel) -> None:
        assert len(draw_sample([group("a", "a"), group("a")], net).rows) == 1

    def test_long_rows_are_left_out_where_there_are_enough_others(self, net: RewardModel) -> None:
        long, short = group("x" * 1500), [group("x" * n) for n in range(1, 9)]
        assert len(draw_sample([*short, long], net).rows[-1].ids) < 1024
        assert len(draw_sample([*short[:3], long], net).rows[-1].ids) > 1500

    def test_what_would_be_cut_is_no_row(self, net: RewardModel) -> None:
        settings = RenderSettings(max_length=100)
        rows = draw_sample([group("x", "x" * 200)], net, settings=settings).rows
        assert len(rows) == 1 and len(rows[0].ids) < 100
        with pytest.raises(DataError, match="none of 1 groups has a completion that can be scored, and a proof needs"):
            draw_sample([group("x" * 200)], net, settings=settings)
        with pytest.raises(DataError, match="none of 0 groups"):
            draw_sample([], net)

    def test_plain_text_is_a_row_too(self, net: RewardModel) -> None:
        for row in (
            draw_sample([group("yes")], net, settings=RenderSettings(plain=True)).rows[0],
            draw_sample([group("a questionyes", prompt="")], net).rows[0],
        ):
            assert (row.text, row.messages) == ("a questionyes", None)

    def test_what_json_has_no_word_for_cannot_be_told_to_another_process(self, net: RewardModel) -> None:
        odd = Group(prompt=({"role": "user", "content": "a", "tag": {1, 2}},), completions=(Completion(content="b"),))
        with pytest.raises(DataError):
            draw_sample([odd], net)
        assert len(draw_sample([odd, group("c")], net).rows) == 1


class TestStarterSample:
    def test_it_has_many_turns_and_a_system_message(self, net: RewardModel) -> None:
        sample = draw_starter_sample(net)
        assert len(sample.rows) == 8 and {row.has_system for row in sample.rows} == {True, False}
        assert max(len(row.messages or ()) for row in sample.rows) > 6
        assert len(draw_starter_sample(net, count=40).rows) == 40

    def test_a_template_that_refuses_a_system_message_gets_none(self, net: RewardModel) -> None:
        net.tokenizer = make_tokenizer(NO_SYSTEM)
        sample = draw_starter_sample(net)
        assert len(sample.rows) == 8 and not any(row.has_system for row in sample.rows)

    def test_without_a_template_it_is_text(self, net: RewardModel) -> None:
        net.tokenizer = make_tokenizer(None)
        assert all(row.text and row.messages is None for row in draw_starter_sample(net).rows)


class TestScores:
    def test_they_are_those_of_one_row_at_a_time(self, net: RewardModel) -> None:
        sample = draw_starter_sample(net)
        net.train()
        scores = score_sample(net, sample)
        assert net.training
        net.eval()
        with net.plain_attention() as hf, torch.inference_mode():
            alone = [float(hf(input_ids=torch.tensor([row.ids])).logits[0, 0]) for row in sample.rows]
        assert scores == pytest.approx(alone, abs=1e-5 * max(map(abs, alone)))

    @pytest.mark.parametrize("with_adapter", [False, True])
    def test_exactly_means_in_float32_with_the_weights_as_they_are(self, with_adapter: bool, folder: Path) -> None:
        net = RewardModel.load(folder, dtype="bfloat16", device="cpu")
        if with_adapter:
            attach_lora(net, LoraSettings(rank=2))
            with torch.no_grad():
                for name, x in net.hf.named_parameters():
                    if ".lora_B." in name:
                        x.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
        before = {name: (x, x.data.data_ptr(), x.dtype) for name, x in net.hf.named_parameters()}
        sample = draw_starter_sample(net)
        found, dtype = score_exactly(net, sample)
        assert dtype == "float32"
        assert {name: (x, x.data.data_ptr(), x.dtype) for name, x in net.hf.named_parameters()} == before
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.backbone.modules())
        narrow = score_sample(net, sample)
        for x in net.hf.parameters():
            x.data = x.data.float()
        assert found == pytest.approx(score_sample(net, sample), abs=1e-6 * max(map(abs, found)))
        assert narrow != pytest.approx(found, abs=1e-6 * max(map(abs, found)))

    def test_where_memory_is_short_they_have_the_nets_precision(
        self, net: RewardModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("plaudit.specimen.free_memory", lambda device: 1000)
        sample = draw_starter_sample(net)
        assert score_exactly(net, sample) == (score_sample(net, sample), "auto")

    def test_a_failure_leaves_the_weights_as_they_were(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        net = RewardModel.load(folder, dtype="bfloat16", device="cpu")
        sample = draw_starter_sample(net)
        mlp = net.hf.get_submodule("model.layers.1.mlp.down_proj")

        def fail(x: Any) -> Any:
            raise RuntimeError("no more memory")

        monkeypatch.setattr(mlp, "forward", fail)
        with pytest.raises(RuntimeError, match="no more memory"):
            score_exactly(net, sample)
        assert {x.dtype for x in net.backbone.parameters()} == {torch.bfloat16}
