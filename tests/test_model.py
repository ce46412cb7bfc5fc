"""model.py: no back end is trusted before it agrees with plain transformers, and what cannot be shared is as exact."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit import model as rooms
from plaudit.attend import ALIGNED, BACKENDS, AttentionCall, BlockPlan
from plaudit.errors import ConfigError
from plaudit.model import INVARIANT, PLAIN, PLAIN_ROWS, RewardNet
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.score import Scorer
from tiny import (
    EOS,
    PAD,
    SIZES,
    VOCABULARY,
    Row,
    identical,
    make_tokenizer,
    nested,
    ragged,
    random_row,
    save_model,
    widen,
)

Attend = Callable[[BlockPlan, Tensor, Tensor, Tensor, AttentionCall], Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def net(folder: Path) -> RewardNet:
    return RewardNet.load(folder, dtype="float32", device="cpu")


def one_pack(*groups: list[Row]) -> Pack:
    [pack] = build_packs(groups, PackSettings(budget=20_000))
    return pack


def score(net: RewardNet, groups: list[list[Row]]) -> dict[tuple[int, int], float]:
    pack = one_pack(*groups)
    with torch.inference_mode():
        return dict(zip(pack.members_L, net(pack).tolist(), strict=True))


def score_alone(hf: Any, groups: list[list[Row]]) -> dict[tuple[int, int], float]:
    with torch.inference_mode():
        return {
            (g, k): float(hf(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0, 0])
            for g, rows in enumerate(groups)
            for k, ids in enumerate(rows)
        }


def assert_exact(net: RewardNet, groups: list[list[Row]] | None = None, alone: Any = score_alone) -> None:
    """What the net gives is what plain transformers gives, one completion at a time."""
    groups = groups or [ragged(PLAIN_ROWS + 3), nested(), identical()]
    with net.plain_attention() as hf:
        wanted = alone(hf, groups)
    assert score(net, groups) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def broken(attend: Attend) -> type[BlockPlan]:
    """A back end with a fault."""

    class Broken(BlockPlan):
        def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
            return attend(self, q_HTD, k_NTD, v_NTD, call)

    return Broken


def fail(*_: Any) -> Tensor:
    raise RuntimeError("no kernel for this device\nand a second line")


def fail_to_compile(*args: Any) -> Any:
    raise subprocess.CalledProcessError(1, ["gcc", "launcher.c"])


def fail_silently(*_: Any) -> Tensor:
    raise NotImplementedError


def forget_the_path(plan: BlockPlan, q: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
    """Every segment begins anew: what a wrong mask does."""
    for segment in plan.segments:
        segment.runs.clear()
    plan.segments = [type(s)(s.start, s.stop, 0, []) for s in plan.segments]
    return BlockPlan.attend(plan, q, k, v, call)


FAULTS: dict[str, tuple[Attend, str]] = {
    "too large": (lambda *args: BlockPlan.attend(*args) * 1.01, "packed and alone differ by "),
    "no number": (lambda *args: BlockPlan.attend(*args) * float("nan"), "packed and alone differ by nan"),
    "a wrong mask": (forget_the_path, "packed and alone differ by "),
    "an error": (fail, "it failed on this model (no kernel for this device)"),
    "a kernel that cannot be compiled": (fail_to_compile, "it failed on this model (Command '['gcc', 'launcher.c']'"),
    "an error without words": (fail_silently, "it failed on this model (NotImplementedError)"),
}


class TestSelfTest:
    @pytest.mark.parametrize("name", FAULTS)
    def test_a_back_end_with_a_fault_is_left_and_that_is_said(
        self, name: str, net: RewardNet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fault, said = FAULTS[name]
        monkeypatch.setitem(BACKENDS, "blocks", broken(fault))
        net.choose_backend()
        assert net.backend == PLAIN
        assert net.reason.startswith(f"blocks: {said}") and "\n" not in net.reason
        assert net.notes == [f"attention back end 'plain' is used: {net.reason}"]
        assert net.notes[0] in Scorer(net).notes
        assert_exact(net)

    def test_the_next_safer_one_is_taken(self, net: RewardNet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(BACKENDS, "fast", broken(fail))
        monkeypatch.setattr(rooms, "backend_ladder", lambda device, invariant: ("fast", "blocks"))
        net.choose_backend()
        assert net.backend == "blocks"
        assert net.notes == [
            "attention back end 'blocks' is used: fast: it failed on this model (no kernel for this device)"
        ]
        assert_exact(net)

    def test_a_fault_where_invariance_was_asked_for_leaves_rows_one_at_a_time(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(BACKENDS, ALIGNED, broken(fail))
        net = RewardNet.load(folder, dtype="float32", device="cpu", invariant=True)
        assert (net.backend, net.reason, net.is_invariant) == (PLAIN, INVARIANT, True)
        assert any("aligned: it failed on this model" in note for note in net.notes)
        assert_exact(net)

    def test_a_model_without_a_fault_has_nothing_to_say(self, net: RewardNet) -> None:
        assert (net.backend, net.reason, net.notes) == ("blocks", "the self-test agrees", [])
        assert net.find_fault("blocks") is None

    @pytest.mark.parametrize("window", [None, 24, 4096])
    def test_the_rows_it_tries_share_and_leave_the_window(self, window: int | None, tmp_path: Path) -> None:
        folder = save_model(tmp_path / "mistral", "mistral", sliding_window=window)
        long, short = RewardNet.load(folder, dtype="float32", device="cpu")._probe_rows()
        shared = int((long[: len(short)] == short).argmin())
        assert 0 < shared < len(short) < len(long) <= 512
        assert len(long) == {None: 48, 24: 72, 4096: 48}[window]

    def test_a_short_context_is_not_left(self, tmp_path: Path) -> None:
        folder = save_model(tmp_path / "short", max_position_embeddings=20)
        net = RewardNet.load(folder, dtype="float32", device="cpu")
        assert net.backend == "blocks"
        assert max(map(len, net._probe_rows())) == 20


class TestChoice:
    def test_one_back_end_can_be_asked_for(self, folder: Path) -> None:
        net = RewardNet.load(folder, dtype="float32", device="cpu", backend="aligned")
        assert (net.backend, net.is_invariant, net.notes) == ("aligned", True, [])
        assert_exact(net)

    def test_the_plain_path_can_be_asked_for(self, folder: Path) -> None:
        net = RewardNet.load(folder, dtype="float32", device="cpu", backend=PLAIN)
        assert (net.backend, net.reason, net.notes) == (PLAIN, "asked for", [])
        assert not net.is_invariant
        assert_exact(net)

    def test_rows_of_their_own_have_no_scores_at_other_tokens(self, folder: Path) -> None:
        net = RewardNet.load(folder, dtype="float32", device="cpu", backend=PLAIN)
        pack = one_pack(ragged(3))
        with pytest.raises(ConfigError, match=r"run a row at a time \(asked for\); choose a loss"):
            net(pack, at=torch.zeros(1, dtype=torch.long))

    def test_an_unknown_one_is_refused_with_the_names_of_all(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="'flash' came, one of varlen, flex, blocks, aligned, plain was needed"):
            RewardNet.load(folder, device="cpu", backend="flash")

    def test_what_the_model_is_can_be_read_off(self, folder: Path) -> None:
        net = RewardNet.load(folder, dtype="bfloat16", device="cpu")
        assert (net.dtype, net.device.type, net.context_length) == (torch.bfloat16, "cpu", 512)
        assert (net.head.weight.dtype, net.head.weight.shape) == (torch.float32, (1, SIZES["hidden_size"]))
        assert net.backbone is net.hf.base_model and not net.training

    def test_plain_attention_lasts_for_its_block_only(self, net: RewardNet) -> None:
        before = net.hf.config._attn_implementation
        with pytest.raises(KeyError), net.plain_attention() as hf:
            assert hf.config._attn_implementation != before and net.backend == PLAIN
            raise KeyError
        assert (net.hf.config._attn_implementation, net.backend) == (before, "blocks")

    def test_a_call_around_the_forward_is_refused(self, net: RewardNet) -> None:
        with pytest.raises(RuntimeError, match="attention was called without a pack; score through RewardModel"):
            net.hf(input_ids=torch.ones(1, 4, dtype=torch.long))


class TestLeaves:
    @pytest.mark.parametrize("backend", ["blocks", "aligned", PLAIN])
    def test_completions_that_are_equal_have_one_score_to_the_bit(self, backend: str, folder: Path) -> None:
        net = RewardNet.load(folder, dtype="float32", device="cpu", backend=backend)
        rng = np.random.default_rng(3)
        rows = [random_row(rng, n) for n in (31, 12, 44, 7, 25)]
        for _ in range(20):
            order = rng.permutation(np.repeat(np.arange(5), 3))
            found = score(net, [[rows[n] for n in order]])
            assert len(set(found.values())) == 5
            for n in range(5):
                assert len({found[0, k] for k, other in enumerate(order) if other == n}) == 1


def recurrent(folder: Path) -> Path:
    """A model whose tokens depend on more than attention."""
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, state_size=8, num_hidden_layers=2, pad_token_id=PAD, eos_token_id=EOS
    )
    hf = AutoModelForCausalLM.from_config(config)
    widen(hf)
    hf.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def score_by_hand(hf: Any, groups: list[list[Row]]) -> dict[tuple[int, int], float]:
    """The backbone's last hidden state through the head: transformers has no classifier for this family to ask."""
    return score_alone(lambda input_ids: SimpleNamespace(logits=hf.score(hf.base_model(input_ids)[0][:, -1])), groups)


class TestModelsThatCannotShare:
    @pytest.fixture
    def mamba(self, tmp_path: Path) -> Iterator[RewardNet]:
        yield RewardNet.load(recurrent(tmp_path / "mamba"), dtype="float32", device="cpu", new_head=True)

    def test_a_recurrent_model_takes_the_plain_path_says_why_and_is_as_exact(self, mamba: RewardNet) -> None:
        assert mamba.backend == PLAIN
        assert mamba.reason.startswith("blocks: ")
        assert f"attention back end 'plain' is used: {mamba.reason}" in mamba.notes
        assert_exact(mamba, alone=score_by_hand)

    def test_its_saved_folder_gives_plain_transformers_the_same_scores(self, mamba: RewardNet, tmp_path: Path) -> None:
        groups = [ragged(3)]
        mamba.is_new = False
        again = RewardNet.load(mamba.save(tmp_path / "saved"), dtype="float32", device="cpu")
        assert score(again, groups) == pytest.approx(score(mamba, groups), rel=1e-5)

    def test_an_encoder_takes_the_plain_path_and_is_invariant_when_asked(self, tmp_path: Path) -> None:
        folder = save_model(tmp_path / "bert", "modernbert")
        net = RewardNet.load(folder, dtype="float32", device="cpu", invariant=True)
        assert (net.backend, net.reason, net.is_invariant) == (PLAIN, INVARIANT, True)
        assert "a bidirectional encoder, whose prompt sees the completion" in net.notes[0]
        groups = [ragged(5)]
        assert_exact(net, groups)
        together = score(net, groups)
        for k, row in enumerate(groups[0]):
            assert score(net, [[row]])[0, 0] == together[0, k]


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_packs_of_short_and_long_rows_keep_each_rows_rotary_frequencies(kind: str, tmp_path: Path) -> None:
    """A pack is cut where frequencies differ: longrope and dynamic choose them by the longest row of a forward."""
    rope: dict[str, object] = {"rope_type": kind, "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
    rope |= {"factor": 4.0} if kind == "dynamic" else {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    limit = 64 if kind == "longrope" else 96
    folder = save_model(tmp_path / kind, rope_parameters=rope, max_position_embeddings=96 if kind == "dynamic" else 512)
    net = RewardNet.load(folder, dtype="float32", device="cpu")
    assert net.backend == "blocks"
    rng = np.random.default_rng(0)
    start = rng.integers(7, 100, 20).astype(np.int32)
    lengths = (5, limit - 20, limit - 19, limit + 30, limit + 60)
    rows = [np.concatenate([start, rng.integers(7, 100, n).astype(np.int32)]) for n in lengths]
    [pack] = build_packs([rows], PackSettings(budget=4096))
    for read in (net.forward, lambda p: net.read_features(p)):
        together = read(pack)
        for place, (_, k) in enumerate(pack.members_L):
            # A fresh model each time: transformers keeps the frequencies of the longest row that `dynamic` has seen.
            fresh = RewardNet.load(folder, dtype="float32", device="cpu", backend=PLAIN)
            [alone] = build_packs([[rows[k]]], PackSettings(budget=4096))
            alone_read = fresh.forward(alone) if read == net.forward else fresh.read_features(alone)
            torch.testing.assert_close(together[place], alone_read[0], rtol=1e-5, atol=1e-5)
    net.zero_grad()
    net(pack).sum().backward()
    packed = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    for row in rows:
        net(build_packs([[row]], PackSettings(budget=4096))[0]).sum().backward()
    for name, p in net.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(packed[name], p.grad, rtol=1e-4, atol=1e-5)
