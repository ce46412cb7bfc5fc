"""environment.json: with what, where and by which command a run was made, one entry a session.

Part of `runs`. What is kept is what a number may depend on: versions, the state of the code, the machine's make; no
host name, no user, no secret. Invariant: reading it needs no torch and changes nothing; what this system does not tell
is None.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from plaudit import __version__
from plaudit.redaction import hide_command

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "datasets",
    "deepspeed",
    "numpy",
    "safetensors",
)
MOST_FILES = 50


def read_session(command: Sequence[str] | None = None) -> dict[str, Any]:
    """This process as one entry: when, by which command, with which versions, on what."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": hide_command(sys.argv if command is None else command),
        "versions": read_versions(),
        "git": read_git(),
        "machine": read_machine(),
    }


def read_versions() -> dict[str, str | None]:
    """plaudit, Python, and the libraries that numbers depend on; None for one that is not here."""
    from importlib import metadata

    found: dict[str, str | None] = {"plaudit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def read_machine() -> dict[str, Any]:
    """The make of this machine, not its name."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": usable,
        "memory": memory,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "world": int(os.environ.get("WORLD_SIZE", "1")) if os.environ.get("WORLD_SIZE", "1").isdecimal() else None,
    }


def read_git() -> dict[str, Any] | None:
    """The commit of the folder that the command runs in, and the files that differ from it; None where it has none."""
    commit = _ask_git("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = (_ask_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()
    return {
        "commit": commit,
        "branch": _ask_git("rev-parse", "--abbrev-ref", "HEAD"),
        "changed": [line.strip() for line in changed[:MOST_FILES]],
        "changed_more": max(0, len(changed) - MOST_FILES),
    }


def _ask_git(*words: str) -> str | None:
    """What git answers; None where there is no git, no repository, or no answer in time."""
    try:
        # Looking must not write: without this, status refreshes the index of someone else's repository.
        done = subprocess.run(
            ["git", "--no-optional-locks", *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip("\n")


def say_command(command: Sequence[str]) -> list[str]:
    """A command as one would type it again: without secrets, and the program by its name, wherever it lies."""
    program = os.path.basename(command[0]) if command else ""
    return ["plaudit" if program == "__main__.py" else program, *hide_command(command)[1:]] if command else []


def compare_versions(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The libraries that are not what they were, each as a sentence."""
    return [
        f"{name} was {was.get(name) or 'not here'} and is {now.get(name) or 'not here'}: "
        "from here on, numbers may be rounded otherwise than in a run that was never stopped"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]
