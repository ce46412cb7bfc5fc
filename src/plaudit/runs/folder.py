"""RUN: made, locked, gone on with, or refused with a sentence.

Part of `runs`. One process opens a run to write it (rank 0; the others read it afterwards). Invariant: whatever stands
in the folder belongs to one configuration, which config.yaml holds; files are whole or not there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from plaudit.config import Settled, TrainConfig, compare_configs, read_config
from plaudit.errors import ConfigError, InputError, InternalError
from plaudit.files import is_temporary, write_file
from plaudit.runs.environment import compare_versions, read_session
from plaudit.runs.metrics import MetricLog, read_metrics

if TYPE_CHECKING:
    from filelock import BaseFileLock

CONFIG, ENVIRONMENT, REPORT = "config.yaml", "environment.json", "report.json"
LOCK = ".lock"
FREE = ("out", "proof", "checks.enabled", "train.log_every", "train.keep", "train.max_skipped")
"""Settings that may change when a run goes on: no weight depends on them."""
FREE_HF = ("report_to", "run_name", "project", "disable_tqdm", "log_level", "log_level_replica", "push_to_hub")
ROUNDING = ("device", "train.budget", "train.gradient_checkpointing", "train.activation_offload")
"""Settings that may change too, and that weights depend on by rounding only: what is computed is the same."""


class RunFolder:
    """A run: its files by name, and what is written into it. Closing lets the lock go."""

    def __init__(self, path: Path, settled: Settled, *, lock: BaseFileLock, saved: TrainConfig | None = None) -> None:
        self.path, self.settled, self.is_resumed, self._saved = path, settled, saved is not None, saved
        self.notes: list[str] = []
        self.metrics = MetricLog(path / "metrics.jsonl")
        self.curves_file, self.model_folder = path / "curves.png", path / "model"
        self.checkpoints_folder = path / "checkpoints"
        self._lock, self._is_open = lock, True

    @property
    def is_finished(self) -> bool:
        """Whether the final numbers are there."""
        return (self.path / REPORT).is_file()

    def write_config(self, settled: Settled) -> None:
        """Keep what the run goes by from now on; called again when everything has been derived."""
        self._check_open()
        if settled.config != self._saved:
            # The file of a run that goes on unchanged is left alone: it knows where the values came from at first.
            settled.write_yaml(self.path / CONFIG)
        self.settled, self._saved = settled, settled.config

    def write_session(self, *, command: Sequence[str] | None = None) -> None:
        """Add this process to environment.json; on another version of a library than before, note it."""
        self._check_open()
        environment = self.read_environment()
        session = read_session(command)
        sessions = environment.setdefault("sessions", [])
        if sessions:
            self.notes += compare_versions(sessions[-1].get("versions", {}), session["versions"])
        sessions.append(session)
        _write_json(self.path / ENVIRONMENT, environment)

    def write_data(self, digests: Mapping[str, str]) -> None:
        """Keep what tells this data from other data, by source; raise ConfigError if the run began with other data."""
        self._check_open()
        environment = self.read_environment()
        before = environment.get("data")
        if before is not None and before != dict(digests):
            changed = [name for name in dict.fromkeys([*before, *digests]) if before.get(name) != digests.get(name)]
            raise ConfigError(
                f"{self.path}: {', '.join(changed)} came with other content than this run began with; "
                "bring back the data as it was, or begin a new run under another --out"
            )
        _write_json(self.path / ENVIRONMENT, environment | {"data": dict(digests)})

    def read_environment(self) -> dict[str, Any]:
        """environment.json: `sessions`, one a process that trained here, and `data`, digests by source."""
        return _read_json(self.path / ENVIRONMENT)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write the final numbers: the run is finished. A number that is not finite is null."""
        self._check_open()
        _write_json(self.path / REPORT, report)

    def read_report(self) -> dict[str, Any]:
        """The final numbers; empty while there are none."""
        return _read_json(self.path / REPORT)

    def _check_open(self) -> None:
        if not self._is_open:
            raise InternalError(f"{self.path}: something was to be written into a run that is closed")

    def close(self) -> None:
        """Close the files and let the lock go."""
        self.metrics.close()
        self._is_open = False
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_saved(path: str | Path) -> TrainConfig | None:
    """The configuration of the run in a folder, to put `under` a new reading; None where there is no run."""
    file = Path(path).expanduser() / CONFIG
    return read_config(file).config if file.is_file() else None


def open_run(settled: Settled, *, resume: bool = False) -> RunFolder:
    """Begin the run in `out`, or go on with the one that stands there; the caller closes it.

    To go on, `settled` is read with `under=read_saved(out)`: what is not said again is as it was.
    """
    folder = Path(settled.config.out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file is there, a folder for the run was needed; name another --out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = _take_lock(folder)
    try:
        saved = read_saved(folder) if _check_content(folder, resume=resume) else None
        run = RunFolder(folder, settled, saved=saved, lock=lock)
        if saved is not None:
            run.notes += _check_same(folder, saved, settled)
        else:
            run.write_config(settled)
            run.notes += [f"{folder}: no run is there to go on with; beginning one"] if resume else []
        return run
    except BaseException:
        lock.release()
        raise


def _take_lock(folder: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: another process is training into it now; wait for it, stop it, or name another --out"
        ) from None
    except NotImplementedError:
        pass  # a file system without locks: nothing tells of a second process there
    return lock


def _check_content(folder: Path, *, resume: bool) -> bool:
    """Whether a run stands there to go on with; raise ConfigError if what stands there must not be touched."""
    there = sorted(p.name for p in folder.iterdir() if p.name != LOCK and not is_temporary(p.name))
    if CONFIG in there:
        if resume:
            return True
        steps = [row["step"] for row in read_metrics(folder / "metrics.jsonl")]
        state = "finished" if REPORT in there else f"at step {max(steps)}" if steps else "just begun"
        raise ConfigError(f"{folder}: a run is there already ({state}); go on with --resume, or name another --out")
    if there:
        listed = ", ".join(there[:3]) + (" ..." if len(there) > 3 else "")
        raise ConfigError(f"{folder}: files are there that are no run ({listed}); name another --out, or remove them")
    return False


def _check_same(folder: Path, saved: TrainConfig, settled: Settled) -> list[str]:
    """What has changed and may; raise ConfigError for what may not."""
    changes = compare_configs(saved, settled.config)
    free = (*FREE, *(f"hf.{name}" for name in FREE_HF))
    refused = [str(change) for change in changes if change.key not in (*free, *ROUNDING)]
    if refused:
        raise ConfigError(
            f"{folder}: this run was begun with other settings ({'; '.join(refused)}); "
            "go on with the same ones, or begin a new run under another --out"
        )
    return [
        f"{change}: what is computed is the same, but its rounding is not"
        for change in changes
        if change.key in ROUNDING
    ]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{file}: it is no JSON ({error}); mend it, or remove it") from None
    return found if isinstance(found, dict) else {}


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    write_file(file, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """JSON has no word for NaN and infinity: null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
