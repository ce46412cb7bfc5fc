"""The folder of a long job: parts that are whole or not there, for one plan, by any number of ranks.

Stands on `files`, above `scorefile`; no torch. The folder lies beside the output and is named after a hash of
the plan, so the same command finds its parts again after a kill, and another command never takes them for its own. A
lock keeps a second process from being the same rank of it. Invariant: a part that stands under its name is complete;
what a failed write began is removed, and what was complete before it stays, to go on from.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.errors import ConfigError, InputError
from plaudit.files import remove_leftovers, write_file, write_file_once

if TYPE_CHECKING:
    from filelock import BaseFileLock

STARTED = time.time()
"""When this process began, to within its first imports: an output that is younger was made meanwhile."""

Say = Callable[[str], None]


def say_on_stderr(sentence: str) -> None:
    """The default for what is said."""
    print(sentence, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Which of how many processes this is; torchrun says so in the environment."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """RANK and WORLD_SIZE, or one process."""
        rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
            raise ConfigError(
                f"RANK={rank} of WORLD_SIZE={world} came, whole numbers with RANK below WORLD_SIZE were needed; "
                "start the processes with torchrun, or unset both"
            )
        return cls(rank=int(rank), world=int(world))

    def is_mine(self, number: int) -> bool:
        """Whether part `number` is this rank's to make: they take turns."""
        return number % self.world == self.rank


def is_passing(out: str) -> bool:
    """Whether an output is no file that could lie beside its parts: stdout, a pipe, a device."""
    return out == "-" or (os.path.exists(out) and not os.path.isfile(out) and not os.path.isdir(out))


class Parts:
    """The parts of one plan for one output. Closing lets the lock go, and removes what no later run could find."""

    def __init__(self, out: str, plan: Mapping[str, Any], ranks: Ranks) -> None:
        self.out, self.ranks = out, ranks
        self.notes: list[str] = []
        self._lock: BaseFileLock | None = None
        name = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
        self.is_passing, self.is_finished = is_passing(out), False
        self.folder = Path(os.devnull)
        with self.writing():
            if self.is_passing:
                self.folder = Path(tempfile.mkdtemp(prefix="plaudit-parts-"))
                return
            target = Path(os.path.realpath(os.path.expanduser(out)))
            lead = f".{target.name[:80]}.parts-"
            self.folder = target.with_name(lead + name)
            # Rank 0 joins the parts and removes them: a rank that comes later must not begin them anew.
            self.is_finished = (
                ranks.rank > 0 and not self.folder.exists() and target.is_file() and target.stat().st_mtime >= STARTED
            )
            if self.is_finished:
                return
            if ranks.rank == 0:
                self._remove_others(target.parent, lead)
                self._adopt(target, name)
            self.folder.mkdir(exist_ok=True)
            self._lock = self._take(self.folder, f"rank-{ranks.rank}")

    def _remove_others(self, where: Path, lead: str) -> None:
        """Parts of other plans for this output are of no use any more, unless someone is at work on them."""
        others = [p for p in where.iterdir() if p.name.startswith(lead) and p != self.folder]
        for other in others:
            self._take(other, "rank-0").release()
            shutil.rmtree(other, ignore_errors=True)
        if others:
            self.notes.append(
                f"{self.out}: what an earlier run had scored was for another model, other data or other settings, "
                "and was removed"
            )

    def _adopt(self, target: Path, name: str) -> None:
        """Go on from the same plan's parts for an output that differs in its suffix, which could not be written."""
        stem = target.name.partition(".")[0]
        for other in sorted(target.parent.glob(f".{glob.escape(stem)}.*.parts-{name}")):
            if self.folder.exists():
                return
            with contextlib.suppress(InputError):  # someone is at work on them
                self._take(other, "rank-0").release()
                other.rename(self.folder)
                self.notes.append(f"{self.out}: what was scored for another kind of output is taken over")

    def _take(self, folder: Path, name: str) -> BaseFileLock:
        from filelock import FileLock, Timeout

        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.out}: another process is scoring into it now; wait for it, stop it, or name another output"
            ) from None
        except NotImplementedError:
            pass  # a file system without locks: nothing tells of a second process there
        return lock

    def path(self, number: int) -> Path:
        """Where part `number` is, or will be."""
        return self.folder / f"part-{number:08d}.jsonl"

    def has(self, number: int) -> bool:
        """Whether there is nothing to do for part `number`, which is also so when rank 0 has removed the folder."""
        return self.path(number).is_file() or not self.folder.is_dir()

    def numbers(self) -> list[int]:
        """The parts that are there."""
        found = (p.stem.removeprefix("part-") for p in self.folder.glob("part-*.jsonl"))
        return sorted(int(number) for number in found if number.isdecimal())

    def write(self, number: int, lines: list[Any]) -> None:
        """Part `number`, moved into place when it is whole and on the disk."""
        with self.writing():
            write_file(self.path(number), "".join(json.dumps(line) + "\n" for line in lines))

    def read(self, number: int) -> list[Any]:
        """The lines of part `number`."""
        return [json.loads(line) for line in self.path(number).read_text(encoding="utf-8").splitlines()]

    def wait(self, number: int, say: Say, *, patience_s: float = 5.0) -> None:
        """Until part `number` is there; whoever waits longer than `patience_s` is told for whom, and again later."""
        began, told = time.monotonic(), 0.0
        while not self.path(number).is_file():
            waited = time.monotonic() - began
            if waited >= max(patience_s, 2 * told):
                told = waited
                say(
                    f"waiting for part {number} from rank {number % self.ranks.world} of {self.ranks.world} "
                    f"({waited:.0f} s so far); if that rank has failed, start it again, or start all of them again: "
                    "what is done stays done"
                )
            time.sleep(min(1.0, patience_s / 5))

    def settle(self, name: str, mine: int) -> int:
        """The number that the first process wrote; every rank and every resumed run uses the same one."""
        with self.writing():
            return int(write_file_once(self.folder / name, str(mine)))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """What a disk can say, as a sentence that tells what is kept and what to do."""
        try:
            yield
        except OSError as error:
            self.close()
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if is_full else error.strerror or str(error)
            cure = "free some space there" if is_full else "mend that"
            kept = f"what was scored before is kept in {self.folder}" if self.numbers() else "nothing was kept"
            raise InputError(
                f"{self.out}: its parts cannot be written into {self.folder.parent} ({reason}); {kept}; {cure}, "
                "and run the same command again"
            ) from None

    def sweep(self) -> None:
        """Remove what a run that was killed while it wrote the output has left beside it: no one else writes there."""
        if self.is_passing:
            return
        remove_leftovers(os.path.expanduser(self.out))

    def remove(self) -> None:
        """The job is done: nothing of it stays but the output."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let the lock go. A folder without one part is of no use, and no later run can find a passing output's."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(OSError):
                lock.release()
        is_useless = self.is_passing or (self.ranks.world == 1 and not self.numbers())
        if is_useless and self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
