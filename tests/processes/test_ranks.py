"""Any number of processes that share a disk write what one does, also when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import plaudit
from forks import Child, Parent, wait_for
from jobs import arguments, count_parts, names, pair_rows, score_whole, write_lines


def start_rank(parent: Parent, argv: list[str], rank: int, world: int) -> Child:
    return parent.start(*argv, env={"RANK": str(rank), "WORLD_SIZE": str(world)})


@pytest.mark.parametrize("order", [(0, 1), (2, 0, 1), (1, 2, 0)], ids=str)
def test_any_number_of_ranks_writes_what_one_does(
    parent: Parent, tiny_reward: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", pair_rows(200)), tmp_path / "out.jsonl"
    whole = score_whole(parent, tiny_reward, data)
    argv = arguments(tiny_reward, data, out, "--window", "16")
    children = {rank: start_rank(parent, argv, rank, len(order)) for rank in order}
    assert {rank: child.wait() for rank, child in children.items()} == dict.fromkeys(order, 0)
    assert out.read_bytes() == whole
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", "whole.jsonl"}
    assert "200 rows, 400 of 400 completions scored" in children[0].stdout.read_text()
    assert all(children[rank].stdout.read_text() == "" for rank in order if rank)


def test_a_rank_that_is_killed_and_started_again_finishes_the_job(
    parent: Parent, tiny_reward: Path, tmp_path: Path
) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", pair_rows(320)), tmp_path / "out.jsonl"
    whole = score_whole(parent, tiny_reward, data)
    argv = arguments(tiny_reward, data, out, "--window", "16")
    second = start_rank(parent, argv, 1, 2)
    wait_for(lambda: count_parts(tmp_path) >= 2)
    second.kill()
    assert second.wait() == -signal.SIGKILL
    first = start_rank(parent, argv, 0, 2)
    wait_for(lambda: count_parts(tmp_path) >= 12)
    assert first.is_running and not out.exists()
    again = start_rank(parent, argv, 1, 2)
    assert (again.wait(), first.wait()) == (0, 0)
    assert out.read_bytes() == whole and names(tmp_path) == {"in.jsonl", "out.jsonl", "whole.jsonl"}
    assert "rows were done already: going on from there" in again.stderr.read_text()


def test_torchrun_writes_what_one_process_does(parent: Parent, tiny_reward: Path, tmp_path: Path) -> None:
    data, out = write_lines(tmp_path / "in.jsonl", pair_rows(120)), tmp_path / "out.jsonl"
    whole = score_whole(parent, tiny_reward, data)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "plaudit"]
    done = subprocess.run(
        [*torchrun, *arguments(tiny_reward, data, out, "--window", "16")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(str(plaudit.__file__)).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert out.read_bytes() == whole and names(tmp_path) == {"in.jsonl", "out.jsonl", "whole.jsonl"}
    assert done.stdout.count("120 rows, 240 of 240 completions scored") == 1
