"""Names of benchmarks, what a row is of, and from a name to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark_rows import best_of_four_row, judgebench_row, llmbar_row, rewardbench_row
from plaudit.benchmarks import BENCHMARKS, Tally, detect_benchmark, find_benchmark, resolve_benchmark
from plaudit.errors import ConfigError
from plaudit.formats import DIALECTS, Reader
from plaudit.group import pair


def test_names_are_of_one_benchmark_each_and_its_dialects_exist() -> None:
    names = [name for one in BENCHMARKS.values() for name in {one.name, *one.aliases, *one.dialects}]
    assert len(names) == len(set(names))
    assert all(dialect in DIALECTS for one in BENCHMARKS.values() for dialect in one.dialects)


@pytest.mark.parametrize(
    ("told", "name"),
    [("rewardbench", "rewardbench"), ("RM-Bench", "rmbench"), ("reward_bench_2", "rewardbench2"), ("rmb-bon", "rmb")],
)
def test_a_benchmark_is_found_by_name_or_dialect(told: str, name: str) -> None:
    assert find_benchmark(told).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nope' came, one of rewardbench, rewardbench2, .*hhh was needed"):
        find_benchmark("nope")


def test_rows_say_what_they_are_of() -> None:
    for dialect, row in (
        ("rewardbench", rewardbench_row("hep-go", 0)), ("rewardbench2", best_of_four_row("Math", 0)),
        ("judgebench", judgebench_row("mmlu-pro-law", 0)), ("llmbar", llmbar_row("Natural", 0)),
    ):  # fmt: skip
        found = detect_benchmark(dialect, row[0])
        assert found is not None and found.name == dialect
    assert detect_benchmark("rewardbench", rewardbench_row("mine", 0)[0]) is None
    assert detect_benchmark("rewardbench2", best_of_four_row("mine", 0)[0]) is None
    assert detect_benchmark("preference", pair("p", "a", "b")) is None
    named = detect_benchmark("preference", pair("p", "a", "b", source="hhh-alignment"))
    assert named is not None and named.name == "hhh"


def test_a_name_is_its_public_files_unless_a_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = resolve_benchmark("rewardbench")
    assert named is not None and named.paths == ("hub:allenai/reward-bench@filtered",)
    (tmp_path / "rewardbench").mkdir()
    assert resolve_benchmark("rewardbench") is None
    local = resolve_benchmark("rewardbench=rewardbench")
    assert local is not None and local.paths == ("rewardbench",)
    for other in ("data.jsonl", "hub:allenai/reward-bench", "s3://x/rewardbench=1"):
        assert resolve_benchmark(other) is None
    with pytest.raises(ConfigError, match="rewardbench=PATH was needed"):
        resolve_benchmark("rewardbench=")


def test_files_without_an_address_have_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"take its files from https://github.com/Zhou-Zoey.* rmb=PATH"):
        resolve_benchmark("rmb")


def test_local_files_are_read_with_their_names(tmp_path: Path) -> None:
    for name in ("Natural", "Adversarial/Neighbor"):
        (tmp_path / name).mkdir(parents=True)
        row = {"input": name, "output_1": "a", "output_2": "b", "label": 1}
        (tmp_path / name / "dataset.json").write_text(json.dumps([row, row]))
    named = resolve_benchmark(f"llmbar={tmp_path}")
    assert named is not None
    tally = Tally(named.benchmark)
    for row in Reader(named.paths):
        tally.add(row.group, [1.0, 0.0], dataset=row.file)
    assert tally.finish().rows == {"Natural": 2, "Neighbor": 2}
