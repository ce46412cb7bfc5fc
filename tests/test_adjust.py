"""What is stored in a model's folder after it was measured: whole, refused with a sentence, forgotten by training."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from plaudit import ConfigError, InputError, ModelError
from plaudit.adjust import (
    CALIBRATION,
    Calibration,
    check_storable,
    forget_findings,
    read_calibration,
    store_findings,
)
from plaudit.checkpoint import CARD, read_card
from plaudit.score import RewardModel, Scorer


@pytest.mark.parametrize("gap", [-2000.0, -3.0, -0.1, 0.0, 0.1, 3.0, 2000.0])
def test_a_gap_over_the_temperature_is_log_odds(gap: float) -> None:
    found = Calibration(temperature=2.5).probability(1.0 + gap, 1.0)
    assert 0 <= found <= 1
    if abs(gap) < 100:
        assert math.log(found / (1 - found)) == pytest.approx(gap / 2.5, abs=1e-9)
    assert found + Calibration(temperature=2.5).probability(1.0, 1.0 + gap) == pytest.approx(1)


def test_what_is_stored_stands_beside_what_was_there_and_reads_back(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text(json.dumps({"plaudit": "0.1.0", "trained": {"seed": 1}}))
    kept = Calibration(temperature=0.7, comparisons=120, data={"a": "sha256:1"})
    assert store_findings(tmp_path, {CALIBRATION: kept.as_json()}) == tmp_path / CARD
    card = read_card(tmp_path)
    assert card["trained"] == {"seed": 1}
    assert read_calibration(card, tmp_path) == kept
    assert [path.name for path in tmp_path.iterdir()] == [CARD]
    assert forget_findings(card) == {"plaudit": "0.1.0", "trained": {"seed": 1}}


def test_a_folder_that_plaudit_did_not_write_gains_the_file(tmp_path: Path) -> None:
    store_findings(tmp_path, {CALIBRATION: Calibration(temperature=2.0).as_json()})
    assert read_calibration(read_card(tmp_path), tmp_path).temperature == 2.0


@pytest.mark.parametrize("found", [{}, {"temperature": "warm"}, {"temperature": 0}, {"temperature": -1.0}, "hot"])
def test_a_temperature_that_is_none_is_refused(tmp_path: Path, found: object) -> None:
    with pytest.raises(ModelError, match="a number over 0 was needed; fit it again"):
        read_calibration({CALIBRATION: found}, tmp_path)


def test_where_nothing_is_stored_the_sentence_says_how_to_fit(tiny_reward: Path) -> None:
    rm = RewardModel.load(tiny_reward, dtype="float32", device="cpu")
    with pytest.raises(ModelError, match=r"no temperature is stored there.*--calibrate"):
        rm.probability("w7", "w8", "w9")
    with pytest.raises(ModelError, match=r"no length correction is stored there.*--fit-length"):
        rm.score("w7", ["w8"], reading="length_corrected")


def test_a_stored_temperature_makes_probabilities(tiny_reward: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_reward, tmp_path / "model"))
    store_findings(model, {CALIBRATION: Calibration(temperature=1.7).as_json()})
    rm = RewardModel.load(model, dtype="float32", device="cpu")
    a, b = rm.score("w7 w8", ["w9 w10", "w11"])
    assert a is not None and b is not None
    assert rm.probability("w7 w8", "w9 w10", "w11") == pytest.approx(1 / (1 + math.exp((b - a) / 1.7)), rel=1e-5)
    assert rm.probability("w7 w8", "w9 w10", "") is None


def test_reward_per_token_divides_by_the_answers_own_tokens(tiny_reward: Path) -> None:
    rm = RewardModel.load(tiny_reward, dtype="float32", device="cpu")
    answers = ["w9 w10 w11", "w12", ""]
    raw, spread = rm.score("w7 w8", answers), rm.score("w7 w8", answers, reading="per_token")
    assert raw[0] is not None and raw[1] is not None and spread[0] is not None and spread[1] is not None
    assert spread[0] == pytest.approx(raw[0] / 3, rel=1e-6)
    assert spread[1] == pytest.approx(raw[1], rel=1e-6)
    assert spread[2] is None


def test_other_readings_are_refused_and_no_answers_have_no_tokens(tiny_reward: Path) -> None:
    rm = RewardModel.load(tiny_reward, dtype="float32", device="cpu")
    with pytest.raises(
        ConfigError, match=r"reading='per_word' came, one of raw, length_corrected, per_token was needed"
    ):
        rm.score("w7 w8", ["w9"], reading="per_word")  # type: ignore[arg-type]
    assert rm.count_tokens([]) == []


def test_a_stream_is_read_the_same_way(tiny_reward: Path) -> None:
    from plaudit.group import pair

    rm = RewardModel.load(tiny_reward, dtype="float32", device="cpu")
    groups = [pair(f"w{7 + n % 40}", " ".join(["w9"] * (1 + n % 5)), "w12") for n in range(300)]
    raw = [s.scores for s in Scorer(rm).score_groups(groups)]
    found = [s.scores for s in rm.score_groups(groups, reading="per_token")]
    for n, (one, spread) in enumerate(zip(raw, found, strict=True)):
        assert one[0] is not None and one[1] is not None
        assert spread == pytest.approx((one[0] / (1 + n % 5), one[1]), rel=1e-5)


def test_storing_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    check_storable("owner/name", [])
    check_storable(str(tmp_path), ["calibrate"])
    with pytest.raises(InputError, match=r"--fit-length and --calibrate stores .* owner/name is no folder; make one"):
        check_storable("owner/name", ["fit-length", "calibrate"])


def test_training_on_forgets_what_was_found_about_the_old_weights(tiny_reward: Path, tmp_path: Path) -> None:
    from plaudit.config import read_config
    from plaudit.preparation import load_net

    model = Path(shutil.copytree(tiny_reward, tmp_path / "model"))
    store_findings(model, {CALIBRATION: Calibration(temperature=1.7).as_json(), "kept": 1})
    config = read_config(None, [], {"model": str(model), "data": ["x"], "out": str(tmp_path / "out")}).config
    assert load_net(config, engine=None).checkpoint.card == {"kept": 1}
