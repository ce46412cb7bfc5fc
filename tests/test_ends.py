"""Where a template writes white space after the closing token, scores are trained at both tokens.

The slow twin of a step scores every completion twice, as two sequences of its own, by plain transformers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.batches import Example, ExampleCounts, StepSet, StepSettings, build_examples, build_step
from plaudit.ends import MOVED, SAME_ORDER, Ends, describe_ends, measure_ends
from plaudit.features import Features
from plaudit.group import Completion, Group, Preference, Ranking, Ratings, pair
from plaudit.losses import LossName, LossSettings, OrdinalState, build_items, compute_loss, fit_loss, join_items
from plaudit.model import PLAIN, RewardNet
from plaudit.pack import PackSettings, build_packs
from plaudit.render import Overlength, Renderer, RenderSettings
from plaudit.score import RewardModel, Scorer
from plaudit.trainer import RewardTrainer, TrainerSettings
from schooling import fit, graded_rows, settle, write_rows
from tiny import EOS, TEMPLATE, make_tokenizer, save_model
from two_ends import NEWLINE, save_two_ended


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.preparation.measure_peak", lambda *a, **k: SimpleNamespace(gflops=100.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_two_ended(tmp_path_factory.mktemp("model") / "two-ended")


def load(folder: Path) -> RewardNet:
    return RewardNet.load(folder, dtype="float32", device="cpu")


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(f"w{rng.randrange(7, NEWLINE)}" for _ in range(rng.randrange(low, high)))


def make_groups(n: int, seed: int = 0) -> list[Group]:
    """Pairs with margins, rankings of four, ratings of five with ties and gaps, in turn."""
    rng = random.Random(seed)
    found = []
    for i in range(n):
        prompt, answers = words(rng, 5, 40), [words(rng, 2, 25) for _ in range(5)]
        if i % 3 == 0:
            found.append(pair(prompt, *answers[:2], margin=rng.choice([0.5, 2.0]), id=f"g{i}"))
            continue
        labels = (Ranking(order=(2, 0, 3, 1)) if i % 3 == 1 else Ratings(ratings=(4.0, 2.0, None, 2.0, 5.0)),)
        kept = tuple(Completion(content=text) for text in answers[: 4 if i % 3 == 1 else 5])
        found.append(Group(prompt=prompt, completions=kept, labels=labels, id=f"g{i}"))
    return found


def make_examples(net: RewardNet, groups: Sequence[Group], loss: LossSettings, **more: Any) -> list[Example]:
    return list(build_examples(groups, Renderer(net.tokenizer), loss, ExampleCounts(), **more))


def make_trainer(net: RewardNet, examples: list[Example], loss: LossSettings, out: Path, budget: int) -> RewardTrainer:
    from transformers import TrainingArguments

    args = TrainingArguments(
        output_dir=str(out), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        remove_unused_columns=False, max_grad_norm=1.0,
    )  # fmt: skip
    steps = StepSet(examples, StepSettings(groups=len(examples), budget=budget))
    return RewardTrainer(net, args, steps, settings=TrainerSettings(loss=loss), evals={"held": examples})


def gradient_of(trainer: RewardTrainer) -> tuple[float, dict[str, Tensor]]:
    trainer.create_optimizer()
    loss = float(trainer.training_step(trainer.model, trainer.steps[0]))
    return loss, {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def read_alone(net: RewardNet, groups: Sequence[Group], loss: LossSettings) -> tuple[float, dict[str, Tensor]]:
    """The mean of two losses: of all sequences to their line break, and of all sequences to their `</s>`."""
    total, count = torch.zeros(()), 0.0
    with net.plain_attention() as hf:
        for group, rendered in zip(groups, Renderer(net.tokenizer).render(groups), strict=True):
            items = build_items(group, [True] * len(group.completions), loss)
            if isinstance(items, str):
                continue
            targets = join_items([(items, {k: k for k in range(len(group.completions))})])
            count += items.count
            ends: list[Tensor] = []
            for cut in (0, 1):
                rows = [torch.from_numpy(ids[: len(ids) - cut].astype(np.int64))[None] for ids in rendered.ids]
                assert all(int(row[0, -1]) == (EOS if cut else NEWLINE) for row in rows)
                scores = torch.stack([hf(input_ids=row, use_cache=False).logits[0] for row in rows])
                score_L = scores if loss.num_scores > 1 else scores[:, 0]
                state = OrdinalState(loss) if loss.name is LossName.ORDINAL else None
                total = total + compute_loss(score_L, targets, loss, state) / 2
                ends.append(score_L)
            total = total + loss.agreement * kept_together(group, (ends[0] - ends[1]).square(), loss)
        (total / count).backward()
    grads = {name: p.grad.clone() for name, p in hf.named_parameters() if p.grad is not None}
    hf.zero_grad()
    return float(total.detach()) / count, grads


def kept_together(group: Group, value_K: Tensor, loss: LossSettings) -> Tensor:
    """The mean over the completions of each comparison, choice of a ranking or rating; each Group counts as one."""
    if loss.name is LossName.PLACKETT_LUCE:
        [label] = group.labels
        rated = [k for k, r in enumerate(getattr(label, "ratings", (0.0,) * len(value_K))) if r is not None]
        return value_K[rated].mean()
    if loss.name is LossName.REGRESSION:
        rows = [
            (k, a) for a, x in enumerate(group.labels) for k, r in enumerate(getattr(x, "ratings", ())) if r is not None
        ]
        return torch.stack([value_K[k] if value_K.dim() == 1 else value_K[k, a] for k, a in rows]).mean()
    pairs = [value_K[[c.better, c.worse]].mean() for c in group.comparisons()]
    return torch.stack(pairs).mean() * (len(pairs) if loss.mean_over == "comparisons" else 1)


LOSSES = {
    "bradley_terry": LossSettings(label_smoothing=0.1, center=0.01, agreement=0.1),
    "comparisons": LossSettings(mean_over="comparisons", agreement=0.3),
    "log_exp": LossSettings(name=LossName.LOG_EXP),
    "hinge": LossSettings(name=LossName.HINGE),
    "ordinal": LossSettings(name=LossName.ORDINAL),
    "scaled_bt": LossSettings(name=LossName.SCALED_BT),
    "plackett_luce": LossSettings(name=LossName.PLACKETT_LUCE, center=0.01, agreement=0.1),
    "regression": LossSettings(name=LossName.REGRESSION, means=(3.0,), spreads=(1.5,), agreement=0.1),
    "attributes": LossSettings(name=LossName.REGRESSION, attributes=("clear", "true"), agreement=0.1),
}


def groups_for(name: str) -> list[Group]:
    groups = make_groups(15)
    if name == "ordinal":
        return [group for group in groups if isinstance(group.labels[0], Preference)]
    if name != "attributes":
        return groups
    labels = (Ratings(ratings=(4.0, 2.0), by="clear"), Ratings(ratings=(1.0, 3.0), by="true"))
    return [replace(group, completions=group.completions[:2], labels=labels) for group in groups]


def load_for(folder: Path, loss: LossSettings) -> RewardNet:
    """The model, with as many scores as the loss learns."""
    net = load(folder)
    if loss.num_scores > 1:
        head = torch.nn.Linear(net.head.in_features, loss.num_scores, bias=False)
        head.weight.data = torch.linspace(-1, 1, head.weight.numel()).reshape(head.weight.shape)
        net.replace_head(head)
    return net


class TestGradients:
    @pytest.mark.parametrize("name", LOSSES)
    def test_a_step_is_that_of_two_sequences_for_each_completion(self, folder: Path, tmp_path: Path, name: str) -> None:
        groups = groups_for(name)
        loss, _ = fit_loss(groups, LOSSES[name])
        value, theirs = read_alone(load_for(folder, loss), groups, loss)
        shapes = set()
        for budget in (100_000, 400, 64):
            net = load_for(folder, loss)
            trainer = make_trainer(net, make_examples(net, groups, loss), loss, tmp_path, budget)
            shapes.add((len(trainer.steps[0].units) > 1, len(trainer.steps[0].wholes) > 0))
            found, ours = gradient_of(trainer)
            assert found == pytest.approx(value, rel=1e-5)
            assert ours.keys() == theirs.keys()
            size = torch.stack([x.norm() for x in theirs.values()]).norm()
            gap = torch.stack([(ours[n] - theirs[n]).norm() for n in theirs]).norm()
            assert float(gap / size) < 1e-5
        if name == "bradley_terry":
            assert shapes == {(False, False), (True, False), (True, True)}, "one pack, many, and groups cut into pieces"

    def test_the_loss_of_every_token_reads_the_closing_token_already(self, folder: Path) -> None:
        net, loss = load(folder), LossSettings(name=LossName.TOKEN_WISE)
        examples = make_examples(net, make_groups(6), loss)
        assert examples and all(example.trailing == () for example in examples)

    def test_a_frozen_backbone_has_the_features_of_both_tokens(self, folder: Path) -> None:
        net, groups, loss = load(folder), make_groups(9), LossSettings(name=LossName.PLACKETT_LUCE)
        value, theirs = read_alone(net, groups, loss)
        net = load(folder)
        net.backbone.requires_grad_(False)
        features = Features(net, make_examples(net, groups, loss), 400)
        rows, targets = features.draw(range(len(features.examples)))
        total = compute_loss(net.head(rows).squeeze(-1), targets, loss) / targets.count
        [ours] = torch.autograd.grad(total, [net.head.weight])
        assert float(total.detach()) == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(ours, theirs["score.weight"], rtol=1e-5, atol=1e-6)

    def test_a_model_that_runs_rows_alone_reads_both_ends_too(self, folder: Path, tmp_path: Path) -> None:
        groups, loss = make_groups(9), LossSettings()
        value, _ = read_alone(load(folder), groups, loss)
        net = RewardNet.load(folder, dtype="float32", device="cpu", backend=PLAIN)
        found, _ = gradient_of(make_trainer(net, make_examples(net, groups, loss), loss, tmp_path, 4096))
        assert found == pytest.approx(value, rel=1e-5)


class TestCost:
    def test_the_second_reading_computes_no_token(self, folder: Path) -> None:
        net, groups, loss = load(folder), make_groups(12), LossSettings()
        both, last = (make_examples(net, groups, loss, both_ends=is_on) for is_on in (True, False))
        assert [e.size for e in both] == [e.size for e in last]
        for budget in (100_000, 400):
            settings = StepSettings(groups=12, budget=budget)
            steps = [build_step(examples, settings) for examples in (both, last)]
            counts = [
                (sum(u.pack.num_unique for u in s.units), sum(u.num_total for u in s.units), s.num_items) for s in steps
            ]
            segments = [sum(u.pack.tree.num_segments for u in s.units) for s in steps]
            assert counts[0] == counts[1] and segments[0] == segments[1]
            leaves = [sum(len(u.pack.members_L) for u in s.units) for s in steps]
            assert leaves[0] == 2 * leaves[1]

    def test_without_white_space_nothing_changes(self, tmp_path: Path) -> None:
        net = load(save_model(tmp_path / "plain"))
        assert make_tokenizer().chat_template == TEMPLATE and not TEMPLATE.endswith("\n")
        groups, loss = make_groups(6), LossSettings()
        for example in make_examples(net, groups, loss):
            assert example.trailing == () and all(a is b for a, b in zip(example.readings, example.ids, strict=True))
        step = build_step(make_examples(net, groups, loss), StepSettings(groups=6))
        assert all(u.targets is not None and u.targets.closing_L is u.targets.leaf_L is None for u in step.units)

    def test_the_switch_turns_it_off(self, folder: Path, tmp_path: Path) -> None:
        write_rows(tmp_path / "pairs.jsonl", graded_rows(48))
        weights = {}
        for ends in ("both", "last"):
            overrides = ("train.max_steps=2", f"train.ends={ends}")
            report, _, said = fit(settle(folder, tmp_path / "pairs.jsonl", tmp_path / ends, *overrides))
            assert any("trained at both tokens" in sentence for sentence in said) is (ends == "both")
            assert report["ends"]["completions"] > 0, "measured all the same"
            weights[ends] = RewardNet.load(report["model"], dtype="float32", device="cpu").head.weight.detach()
        assert not torch.equal(weights["both"], weights["last"])


class TestNumbers:
    def test_accuracy_and_rewards_are_those_of_the_last_token(self, folder: Path, tmp_path: Path) -> None:
        net, groups, loss = load(folder), make_groups(15, seed=4), LossSettings()
        found = []
        for is_on in (True, False):
            examples = make_examples(net, groups, loss, both_ends=is_on)
            for budget in (100_000, 64):
                found.append(make_trainer(net, examples, loss, tmp_path, budget).evaluate())
        same = ("accuracy", "margin", "mean_reward", "reward_std", "max_reward", "min_reward", "chosen_reward")
        for metrics in found:
            for key in same:
                assert metrics[f"eval_{key}"] == pytest.approx(found[-1][f"eval_{key}"], rel=1e-4, abs=1e-5), key
        assert found[0]["eval_sharing"] == pytest.approx(found[2]["eval_sharing"])
        assert found[0]["eval_loss"] == pytest.approx(found[1]["eval_loss"], rel=1e-5)
        assert found[0]["eval_loss"] != pytest.approx(found[2]["eval_loss"], rel=1e-4)

    def test_the_agreement_is_that_of_separate_scores(self, folder: Path) -> None:
        net, groups = RewardModel.load(folder, dtype="float32", device="cpu"), make_groups(12)
        found = measure_ends(Scorer(net), groups)
        assert found is not None
        last, closing, same, right = [], [], [], []
        for group, rendered in zip(groups, Renderer(net.tokenizer).render(groups), strict=True):
            rows = [[ids for ids in rendered.ids if ids is not None]]
            rows.append([ids[:-1] for ids in rows[0]])
            with torch.no_grad(), net.plain_attention() as hf:
                a, b = (
                    [float(hf(input_ids=torch.from_numpy(x.astype(np.int64))[None]).logits[0, 0]) for x in end]
                    for end in rows
                )
            last, closing = last + a, closing + b
            same += [(a[i] > a[j]) == (b[i] > b[j]) for i in range(len(a)) for j in range(i)]
            right += [(a[c.better] > a[c.worse], b[c.better] > b[c.worse]) for c in group.comparisons() if not c.is_tie]
        gap = np.array(closing) - np.array(last)
        assert (found.completions, found.pairs, found.comparisons) == (len(last), len(same), len(right))
        assert found.same_order == pytest.approx(np.mean(same))
        assert found.mean_difference == pytest.approx(np.abs(gap).mean(), rel=1e-4)
        assert found.max_difference == pytest.approx(np.abs(gap).max(), rel=1e-4)
        assert found.moved == pytest.approx(gap.std() / np.std(last), rel=1e-4)
        assert (found.accuracy_last, found.accuracy_closing) == pytest.approx(tuple(np.mean(right, axis=0)))
        assert not found.agrees, "nobody trained this model at its closing token"

    def test_a_template_with_one_end_has_no_agreement(self, tmp_path: Path) -> None:
        net = RewardModel.load(save_model(tmp_path / "plain"), dtype="float32", device="cpu")
        assert measure_ends(Scorer(net), make_groups(3)) is None

    @pytest.mark.parametrize(
        ("order", "moved", "agrees"),
        [
            (SAME_ORDER, MOVED, True),
            (SAME_ORDER - 0.001, MOVED, False),
            (SAME_ORDER, MOVED + 0.001, False),
            (None, None, True),
        ],
    )
    def test_the_tolerance_is_checked_and_said(self, order: float | None, moved: float | None, agrees: bool) -> None:
        ends = Ends(
            completions=4, pairs=2, same_order=order, mean_difference=0.5, max_difference=1.0, moved=moved, spread=2.0,
            comparisons=0, accuracy_last=None, accuracy_closing=None,
        )  # fmt: skip
        assert ends.agrees is agrees
        assert ("more than the tolerance" in describe_ends(ends.as_json())) is not agrees


class TestRuns:
    @pytest.mark.parametrize(
        "overrides",
        [
            (),
            ("lora.enabled=true",),
            ("train.backbone=frozen", "train.epochs=5"),
            ("streaming=true", "train.max_steps=8"),
        ],
    )
    def test_the_agreement_is_measured_and_kept(self, folder: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
        data = write_rows(tmp_path / "pairs.jsonl", graded_rows(120))
        held = write_rows(tmp_path / "held.jsonl", graded_rows(40, seed=9))
        report, _, said = fit(settle(folder, data, tmp_path / "run", *overrides, evals=(held,)))
        found = report["ends"]
        assert (found["completions"], found["pairs"], found["comparisons"]) == (80, 40, 40)
        assert json.loads((tmp_path / "run" / "report.json").read_text())["ends"] == found
        assert json.loads((tmp_path / "run" / "model" / "plaudit.json").read_text())["ends"] == found
        assert found["accuracy_last"] == pytest.approx(report["eval"]["accuracy"])
        page = (tmp_path / "run" / "model" / "README.md").read_text()
        assert "## Read at EOS" in page and describe_ends(found) in page
        assert describe_ends(found) in said

    def test_a_resumed_run_ends_with_the_same_weights(self, folder: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file

        data = write_rows(tmp_path / "pairs.jsonl", graded_rows(96))
        held = write_rows(tmp_path / "held.jsonl", graded_rows(12, seed=9))
        overrides = ("train.epochs=1", "train.save_every=2", "train.eval_every=2", "train.keep=9")
        fit(settle(folder, data, tmp_path / "whole", *overrides, evals=(held,)))
        settled = settle(folder, data, tmp_path / "cut", *overrides, evals=(held,))
        fit(settled)
        # What a kill after step 4 leaves behind.
        import shutil

        for name in ("report.json", "model"):
            path = tmp_path / "cut" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for step in (6,):
            shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"checkpoint-{step}")
        _, _, said = fit(settle(folder, data, tmp_path / "cut", *overrides, evals=(held,)), resume=True)
        assert any("going on from" in sentence and "checkpoint-4" in sentence for sentence in said), said
        one, other = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("whole", "cut"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_evaluation_reports_the_agreement_and_warns(folder: Path, tmp_path: Path) -> None:
    from plaudit.evaluate import Asking, EvalSettings, evaluate
    from plaudit.intake import ReadSettings
    from plaudit.sets import Wanted

    data = write_rows(tmp_path / "pairs.jsonl", graded_rows(80))
    report = evaluate(
        EvalSettings(
            model=str(folder), data=(str(data),), out=tmp_path / "out", wanted=Wanted(reading=ReadSettings()),
            probes=False, asking=Asking(dtype="float32", device="cpu"),
        ),
        say=lambda sentence: None,
    )  # fmt: skip
    assert report is not None
    found = report["ends"]
    assert (found["completions"], found["pairs"], found["agrees"]) == (128, 64, False)
    assert describe_ends(found) in report["notes"] and "ends" in report["seconds"]


class TestRows:
    @pytest.mark.parametrize("policy", [Overlength.LEFT, Overlength.RIGHT])
    def test_a_row_that_was_cut_keeps_its_two_ends(self, folder: Path, policy: Overlength) -> None:
        net, rng = load(folder), random.Random(1)
        group = pair(words(rng, 5, 6), words(rng, 30, 31), words(rng, 3, 4))
        settings = RenderSettings(max_length=20, overlength=policy)
        [rendered] = Renderer(net.tokenizer, settings).render([group])
        assert [ids[-2:].tolist() for ids in rendered.ids if ids is not None] == [[EOS, NEWLINE]] * 2
        assert rendered.trailing == (1, 1) and len(rendered.ids[0]) == 20

    def test_a_row_too_short_for_an_end_has_none(self, folder: Path) -> None:
        net = load(folder)
        settings = RenderSettings(max_length=1, overlength=Overlength.LEFT)
        [rendered] = Renderer(net.tokenizer, settings).render([pair("w20", "w30", "w31")])
        assert [ids.tolist() for ids in rendered.ids if ids is not None] == [[NEWLINE]] * 2
        assert rendered.trailing == (0, 0)

    def test_an_empty_completion_and_plain_text_have_one_end(self, folder: Path) -> None:
        net = load(folder)
        group = Group(prompt="w20", completions=tuple(Completion(content=text) for text in ("w30", " ", "w31")))
        [rendered] = Renderer(net.tokenizer).render([group])
        assert rendered.trailing == (1, 0, 1) and rendered.ids[1] is None
        plain = Renderer(net.tokenizer, RenderSettings(plain=True)).render([group])[0]
        assert plain.trailing == (0, 0, 0)

    def test_groups_with_one_end_and_with_two_share_a_pack(self, folder: Path, tmp_path: Path) -> None:
        """A transcript without a prompt is plain text: its second reading is its first."""
        net, loss = load(folder), LossSettings()
        groups = [*make_groups(3), pair("", "w20 w21 w22", "w23 w24")]
        examples = make_examples(net, groups, loss)
        assert [bool(e.trailing) for e in examples] == [True, True, True, False]
        step = build_step(examples, StepSettings(groups=4, budget=100_000))
        [unit] = step.units
        assert unit.targets is not None and unit.targets.closing_L is not None
        with torch.no_grad():
            score_L = net(unit.pack)
        total = float(compute_loss(score_L, unit.targets, loss))
        apart = 0.0
        for example in examples:
            [pack] = build_packs([example.readings], PackSettings(budget=100_000))
            targets = join_items([example.place_scores({k: leaf for leaf, (_, k) in enumerate(pack.members_L)})])
            with torch.no_grad():
                apart += float(compute_loss(net(pack), targets, loss))
        assert total == pytest.approx(apart, rel=1e-5)
