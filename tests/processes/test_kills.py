"""Killed at any moment, the same command goes on where it was, and writes the same bytes."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from forks import Child, Parent, wait_for
from jobs import arguments, count_parts, names, pair_rows, write_lines


def is_merging(child: Child, out: Path, num_parts: int) -> bool:
    return count_parts(out.parent) == num_parts or not child.is_running


def kill_and_repeat(
    parent: Parent, argv: list[str], out: Path, *, num_parts: int, num_kills: int, seconds: float
) -> bytes:
    """Kill the command at `num_kills` random moments, every fifth of them in the merge, then let it end."""
    rng, num_hit, tries = random.Random(num_parts), 0, 0
    while num_hit < num_kills:
        tries += 1
        assert tries < 10 * num_kills, "the kills come too late to hit anything"
        child = parent.start(*argv)
        if num_hit % 5 == 4:
            wait_for(partial(is_merging, child, out, num_parts))
            time.sleep(rng.uniform(0, 0.1) * seconds)
        else:
            time.sleep(rng.uniform(0, 1) * seconds)
        child.kill()
        code = child.wait()
        num_hit += code == -signal.SIGKILL
        if code == 0:
            out.unlink()  # it was done before the kill came: from the start again
    child = parent.start(*argv)
    assert child.wait() == 0, child.stderr.read_text()
    return out.read_bytes()


def check_kills(parent: Parent, tiny_reward: Path, folder: Path, *, num_rows: int, num_kills: int) -> None:
    data = write_lines(folder / "in.jsonl", pair_rows(num_rows))
    whole, out = folder / "whole.jsonl", folder / "out.jsonl"
    start = time.monotonic()
    assert parent.start(*arguments(tiny_reward, data, whole, "--window", "16")).wait() == 0
    seconds = time.monotonic() - start
    argv = arguments(tiny_reward, data, out, "--window", "16")
    found = kill_and_repeat(parent, argv, out, num_parts=-(-num_rows // 16), num_kills=num_kills, seconds=seconds)
    assert found == whole.read_bytes()
    assert names(folder) == {"in.jsonl", "out.jsonl", "whole.jsonl"}


def test_five_kills_leave_no_trace(parent: Parent, tiny_reward: Path, tmp_path: Path) -> None:
    check_kills(parent, tiny_reward, tmp_path, num_rows=400, num_kills=5)


@pytest.mark.slow
def test_twenty_kills_over_five_thousand_rows_leave_no_trace(parent: Parent, tiny_reward: Path, tmp_path: Path) -> None:
    check_kills(parent, tiny_reward, tmp_path, num_rows=5000, num_kills=20)
