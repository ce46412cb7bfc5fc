"""Mutation testing: change one operator, constant, condition or call of the package, and see whether a test fails.

`make mutants` samples N places with a seed from the files in `AREAS`. Each mutant runs the tests that mirror its file
(stage 1); a survivor runs every test file that names its module, and the files of `WIDER` (stage 2). mutmut and
cosmic-ray start an interpreter per mutant, which costs ten seconds of importing torch; this script imports it once and
forks.

Survivors that cannot be told from the original by any input stand in `equivalent_mutants.json`, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "plaudit"
TESTS = ROOT / "tests"
EQUIVALENT = TESTS / "equivalent_mutants.json"

# What the scores, losses, figures and selections of a user rest on.
AREAS = {
    "engine": tuple(
        f"{name}.py"
        for name in ("tree", "pack", "blocks", "attend", "encode", "render", "feedforward", "model", "score")
    ),
    "losses": ("losses/",),
    "metrics": ("measure/",),
    "selection": ("select/",),
    "formats": ("formats/",),
    "corpus": ("corpus/", "keys.py"),
}
# Files that no test file has the name of: what tests them.
WIDER = {
    "engine": ("test_score.py", "test_model.py", "test_attend.py", "test_render.py"),
    "losses": ("losses", "test_trainer.py"),
    "metrics": ("measure",),
    "selection": ("select", "test_nonfinite_tables.py"),
    "formats": ("formats", "test_nonfinite_tables.py", "test_changed_content.py"),
    "corpus": ("test_corpus.py", "test_stream.py", "test_keys.py"),
}

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the source between two offsets of a line range is replaced."""

    area: str
    file: str
    line: int
    kind: str
    before: str
    after: str
    start: int  # offsets into the file's text
    stop: int


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every change of one node, as a kind and the node to put in its place."""

    def copy_with(**fields: object) -> ast.AST:
        return type(node)(**{**{name: getattr(node, name, None) for name in node._fields}, **fields})

    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            ops = [SWAPS[type(op)]() if i == j else other for j, other in enumerate(node.ops)]
            yield "comparison", copy_with(ops=ops)
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        yield "operator", copy_with(op=SWAPS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield "operator", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value = not node.value if node.value is True or node.value is False else node.value + 1
        yield "constant", ast.Constant(value)
    elif isinstance(node, ast.IfExp):
        yield "condition", copy_with(test=ast.UnaryOp(op=ast.Not(), operand=node.test))
    elif isinstance(node, ast.Call):
        if len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
            yield "call", node.args[0]
        for i, keyword in enumerate(node.keywords):
            # zip's strict= is an assertion: it fires for inputs that do not occur.
            if keyword.arg not in (None, "strict"):
                yield "call", copy_with(keywords=[k for j, k in enumerate(node.keywords) if j != i])


def _skips(node: ast.AST) -> bool:
    """Code whose change is no change of behaviour that tests should pin: messages, types, decorators."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.AnnAssign | ast.Import | ast.ImportFrom):
        return not (isinstance(node, ast.AnnAssign) and node.value is not None)
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def mutants_of(path: Path, area: str) -> list[Mutant]:
    """Every mutant of one file, in order."""
    text = path.read_text(encoding="utf-8")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = text.encode()
    found: list[Mutant] = []

    def add(node: ast.expr | ast.stmt, kind: str, after: str) -> None:
        start = starts[node.lineno - 1] + node.col_offset
        stop = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before = raw[start:stop].decode()
        if re.sub(r"\s", "", before) != re.sub(r"\s", "", after):
            name = str(path.relative_to(PACKAGE))
            found.append(Mutant(area, name, node.lineno, kind, before, after, start, stop))

    def walk(node: ast.AST) -> None:
        if _skips(node):
            return
        if isinstance(node, ast.expr):
            for kind, changed in _changes(node):
                add(node, kind, f"({ast.unparse(ast.fix_missing_locations(changed))})")
        if isinstance(node, ast.If | ast.While):
            add(node.test, "condition", f"(not ({ast.unparse(node.test)}))")
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            add(node, "call", "pass")
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "keywords") and not isinstance(node, ast.Call):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child)

    walk(ast.parse(text))
    return found


def files_of(area: str) -> list[Path]:
    """The files of an area."""
    places = [PACKAGE / name for name in AREAS[area]]
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def tests_of(mutant: Mutant) -> tuple[list[str], list[str]]:
    """Test files for both stages: those of the file's name, then those that name its module or stand in `WIDER`."""
    path = Path(mutant.file)
    everything = sorted(TESTS.rglob("test_*.py"))
    slow = ("docs", "processes", "distributed", "cli", "gpu")  # minutes, and about other things
    everything = [t for t in everything if not set(slow) & set(t.relative_to(TESTS).parts)]
    folders = [TESTS / part for part in path.parts[:-1]]
    own = [t for t in everything if t.stem == f"test_{path.stem}" and (not folders or t.parent in (TESTS, *folders))]
    dotted = re.compile(rf"plaudit\.{re.escape('.'.join(path.with_suffix('').parts))}\b")
    naming = [t for t in everything if dotted.search(t.read_text(encoding="utf-8"))]
    places = [TESTS / name for name in WIDER[mutant.area]]
    wider = [t for t in everything if any(t == place or place in t.parents for place in places)]
    first = own or naming[:3] or wider
    rest = [t for t in dict.fromkeys([*naming, *wider]) if t not in first]
    return [str(t) for t in first], [str(t) for t in rest]


class Runner:
    """Runs tests against a copy of the package in forked children of this process."""

    def __init__(self, folder: Path, limit: float | None) -> None:
        self.folder, self.limit = folder, limit
        self.normal: dict[tuple[str, ...], float] = {}

    def copy_package(self, name: str) -> Path:
        """A copy of the package that one worker may change."""
        shutil.copytree(PACKAGE, self.folder / name / "plaudit", ignore=shutil.ignore_patterns("__pycache__"))
        return self.folder / name

    def test(self, source: Path, files: list[str], limit: float) -> str:
        """`passed`, `failed`, `timeout` or `none` (no test ran)."""
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                self._in_child(source, files)
            except BaseException:  # no exception of a mutant may go on with the parent's code
                traceback.print_exc()
            finally:
                os._exit(70)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)  # what the tests left behind
                return {0: "passed", 5: "none"}.get(code, "failed")
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timeout"

    def _in_child(self, source: Path, files: list[str]) -> None:
        import pytest

        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(source / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.path[:0] = [str(source)]
        os.environ["PYTHONPATH"] = f"{source}:{TESTS}"
        sys.dont_write_bytecode = True
        basetemp = tempfile.mkdtemp(dir=source)
        code = pytest.main([
            "-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp", basetemp,
            "-m", "not slow and not gpu and not network", *files,
        ])  # fmt: skip
        shutil.rmtree(basetemp, ignore_errors=True)
        os._exit(int(code))

    def run(self, mutant: Mutant, source: Path) -> str:
        """`killed`, `survived`, or what went wrong with the tests themselves."""
        path = source / "plaudit" / mutant.file
        original = path.read_bytes()
        outcome = "survived"
        try:
            for files in tests_of(mutant):
                if not files:
                    continue
                key = tuple(files)
                if self.limit is None and key not in self.normal:
                    path.write_bytes(original)
                    start = time.monotonic()
                    if (normal := self.test(source, files, 900)) != "passed":
                        log = (source / "log").read_text(encoding="utf-8", errors="replace")
                        raise SystemExit(f"the tests of the unchanged file {mutant.file}: {normal}\n{log[-3000:]}")
                    self.normal[key] = time.monotonic() - start
                path.write_bytes(original[: mutant.start] + mutant.after.encode() + original[mutant.stop :])
                if self.test(source, files, self.limit or 30 + 6 * self.normal[key]) != "passed":
                    return "killed"
        finally:
            path.write_bytes(original)
        return outcome


def _import_libraries() -> None:
    """What the package's dependencies cost to import is paid once, before the forks; nothing of plaudit is."""
    import peft  # noqa: F401
    import pyarrow.dataset  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import sklearn  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Trainer  # noqa: F401

    torch.set_num_threads(1)
    assert not any(name.split(".")[0] == "plaudit" for name in sys.modules)


def _known_equivalent() -> dict[tuple[str, str, str, str], str]:
    """Reasons by file, line of source, and change; numbers of lines move too often to name a place."""
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return {(e["file"], e["line"], e["before"], e["after"]): e["reason"] for e in known}


def _name(mutant: Mutant) -> tuple[str, str, str, str]:
    line = (PACKAGE / mutant.file).read_text(encoding="utf-8").splitlines()[mutant.line - 1].strip()
    return mutant.file, line, mutant.before, mutant.after


def main() -> int:
    """Sample, run, report; exit 1 below the share that must be killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="mutants to sample (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--areas", nargs="*", default=list(AREAS), choices=list(AREAS), help="all")
    parser.add_argument("--file", help="only mutants of files whose path contains this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="results as JSON lines; mutants in it already are not run again")
    parser.add_argument(
        "--limit",
        type=float,
        help="seconds a test run may take, for a suite that is known to pass; else it is run first",
    )
    parser.add_argument("--list", action="store_true", help="print the sample and stop")
    args = parser.parse_args()
    every = [m for area in args.areas for path in files_of(area) for m in mutants_of(path, area)]
    every = [m for m in every if not args.file or args.file in m.file]
    sample = random.Random(args.seed).sample(every, min(args.number, len(every)))
    print(f"{len(sample)} of {len(every):,} mutants, seed {args.seed}", flush=True)
    if args.list:
        for m in sample:
            print(f"{m.file}:{m.line}: {m.kind}: {m.before!r} -> {m.after!r}")
        return 0
    known = _known_equivalent()
    done: dict[str, str] = {}
    if args.out and args.out.exists():
        rows = (json.loads(line) for line in args.out.read_text().splitlines())
        done = {json.dumps(row["mutant"]): row["outcome"] for row in rows}
    _import_libraries()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(args.workers) as pool:
        runner = Runner(Path(folder), args.limit)
        free = [runner.copy_package(f"copy{n}") for n in range(args.workers)]

        def judge(mutant: Mutant) -> tuple[Mutant, str]:
            if _name(mutant) in known:
                return mutant, "equivalent"
            if (key := json.dumps(asdict(mutant))) in done:
                return mutant, done[key]
            source = free.pop()
            try:
                return mutant, runner.run(mutant, source)
            finally:
                free.append(source)

        outcomes: list[tuple[Mutant, str]] = []
        for mutant, outcome in pool.map(judge, sample):
            outcomes.append((mutant, outcome))
            if args.out and json.dumps(asdict(mutant)) not in done:
                with args.out.open("a") as file:
                    file.write(json.dumps({"mutant": asdict(mutant), "outcome": outcome}) + "\n")
            if outcome != "killed":
                print(f"{outcome}: {mutant.file}:{mutant.line}: {mutant.before!r} -> {mutant.after!r}", flush=True)
            elif len(outcomes) % 25 == 0:
                print(f"{len(outcomes)} done", file=sys.stderr, flush=True)
    counts = {o: sum(x == o for _, x in outcomes) for o in ("killed", "equivalent", "survived")}
    other = len(outcomes) - sum(counts.values())
    counted = counts["killed"] + counts["survived"]
    share = counts["killed"] / max(1, counted)
    print(
        f"killed {counts['killed']} of {counted} ({100 * share:.1f}%); equivalent {counts['equivalent']}; "
        f"survived {counts['survived']}; not judged {other}"
    )
    return int(share < 0.9 or other > 0)


if __name__ == "__main__":
    sys.exit(main())
