"""Processes of the `plaudit` command that start in milliseconds: forked from one that has imported everything.

The parent runs one thread and loads no model, so that forking it is safe; its children are real processes, which can be
killed, stopped and waited for like any other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARENT = """
import json, os, signal, sys
import plaudit.scorefile, plaudit.score, transformers.models.llama.modeling_llama, pyarrow.parquet, filelock
from plaudit.cli.app import main
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.environ.update(order["env"])
        for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(order[name], flags), number)
        sys.stdin = open(0, closefd=False)
        code = 1
        try:
            code = main(order["argv"])
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(code)
    print(pid, flush=True)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """One running command, and where its words go."""

    parent: Parent
    pid: int
    stdout: Path
    stderr: Path

    def wait(self) -> int:
        """Its exit code; negative is the signal that ended it."""
        return int(self.parent.ask({"wait": self.pid}))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing happens if it has ended."""
        os.kill(self.pid, number)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"


class Parent:
    """The process that children are forked from, by way of the command `wrap` if there is one; close it."""

    def __init__(self, folder: Path, *, wrap: Sequence[str] = (), imports: str = "sys") -> None:
        self.folder, self.count = folder, 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        pipe: Any = subprocess.PIPE
        self.process = subprocess.Popen(
            [*wrap, sys.executable, "-c", f"import {imports}\n{PARENT}"],
            stdin=pipe,
            stdout=pipe,
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def ask(self, order: dict[str, Any]) -> str:
        """One line there, one line back."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def start(self, *argv: str, env: dict[str, str] | None = None, stdin: str = os.devnull, stdout: str = "") -> Child:
        """`plaudit ARGV` in a process of its own."""
        self.count += 1
        out = Path(stdout or self.folder / f"{self.count}.out")
        err = self.folder / f"{self.count}.err"
        order = {"argv": argv, "env": env or {}, "stdin": stdin, "stdout": str(out), "stderr": str(err)}
        return Child(parent=self, pid=int(self.ask(order)), stdout=out, stderr=err)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def wait_for(condition: Any, *, seconds: float = 60.0) -> None:
    """Until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.0005)
