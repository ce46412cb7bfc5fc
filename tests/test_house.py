"""The house keeps its own rules: the map, the budgets, the words, and the doors that stay shut."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import plaudit
from plaudit.cli.app import COMMANDS, Command, build_app, main

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "plaudit"
GOLDEN_FLAGS = Path(__file__).parent / "golden" / "flags.txt"

NAMES_BUDGET = 40
ATTIC = {"utils", "util", "common", "helpers", "helper", "misc"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# A process edge is where an unknown error has to become an answer: the command line's top.
EDGES = ("cli/app.py",)

FILES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


by_file = pytest.mark.parametrize("path", FILES, ids=name_of)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions_of(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, Function))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every module of ours that a file imports, also late ones inside functions, with the line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "plaudit")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; name the module in full"
            if node.module and node.module.split(".")[0] == "plaudit":
                for alias in node.names:
                    deeper = f"{node.module}.{alias.name}"
                    yield (deeper if deeper in MODULES else node.module), node.lineno


def room_of(module: str) -> str | None:
    """The line of the map that a module belongs to; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def rooms_on_the_map() -> list[str]:
    return re.findall(r"^    (\w+) {2,}\S", plaudit.__doc__ or "", flags=re.MULTILINE)


def test_the_map_lists_exactly_the_rooms_that_are_there() -> None:
    there = {room_of(module) for module in MODULES} - {None, "__main__"}
    on_map = rooms_on_the_map()
    assert len(on_map) == len(set(on_map)), "the map names a room twice"
    assert there - set(on_map) == set(), "rooms that the map in plaudit/__init__.py does not name"
    assert set(on_map) - there == set(), "rooms on the map that are not there"


@by_file
def test_imports_come_only_from_above(path: Path) -> None:
    order = {room: place for place, room in enumerate(rooms_on_the_map())}
    here = room_of(module_of(path))
    if here in (None, "__main__"):
        return  # the facade and the door open onto every room
    below = [
        f"line {line}: {module}"
        for module, line in imports_of(path)
        if (there := room_of(module)) is not None and order[there] > order[here]
    ]
    assert below == [], f"{name_of(path)} imports from below itself on the map"


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {
        name: {m for m, _ in imports_of(path) if m != "plaudit"} for name, path in MODULES.items() if name != "plaudit"
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(edges.get(module, ())):
                walk(target, (*trail, module))
            done.add(module)

    for name in edges:
        walk(name, ())


def undocumented(body: list[ast.stmt]) -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        is_overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
        if ast.get_docstring(node) is None and not is_overload:
            yield f"{node.name} (line {node.lineno})"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body)


@by_file
def test_modules_and_public_things_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "a module opens with where it stands and what it keeps true"
    assert list(undocumented(tree_of(path).body)) == []


@by_file
def test_every_function_says_what_it_returns(path: Path) -> None:
    silent = [f"{node.name} (line {node.lineno})" for node in functions_of(path) if node.returns is None]
    assert silent == []


@by_file
def test_names_say_what_a_thing_is(path: Path) -> None:
    assert not ATTIC & set(path.relative_to(PACKAGE).with_suffix("").parts), "an attic, where things go to be forgotten"


@by_file
def test_only_an_edge_catches_everything(path: Path) -> None:
    if name_of(path) in EDGES:
        return
    broad = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"Exception"}
            raises = any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(node))
            # Cleaning up and raising again is no catch.
            broad += [f"line {node.lineno}"] if caught & {"Exception", "BaseException"} and not raises else []
    assert broad == [], "catch what can be mended, let the rest rise to the edge"


# The Trainer keeps a scheduler in this form and reads it back with weights_only; where we save in its place, so do we.
TRAINERS_OWN = {("committing.py", "torch.save")}


@by_file
def test_no_pickle_and_no_foreign_code_unless_asked(path: Path) -> None:
    opened = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            opened += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            opened.append(str(node.module))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save"):
            called = ast.unparse(node.func)
            opened += [called] if (name_of(path), called) not in TRAINERS_OWN else []
        elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle", "weights_only"):
            unsafe = node.arg != "weights_only"
            opened += [node.arg] if isinstance(node.value, ast.Constant) and node.value.value is unsafe else []
        elif isinstance(node, Function):
            arguments = [*node.args.posonlyargs, *node.args.args][::-1]
            pairs = [
                *zip(arguments, node.args.defaults[::-1], strict=False),
                *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
            ]
            opened += [
                a.arg for a, d in pairs if a.arg == "trust_remote_code" and isinstance(d, ast.Constant) and d.value
            ]
    assert opened == []


@by_file
def test_comments_leave_no_debts_and_no_banners(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"#.*\b(?:TODO|FIXME|XXX|HACK)\b.*", text) == []
    assert re.findall(r"^\s*#\s*[-=*#]{4,}.*", text, flags=re.MULTILINE) == [], "if a banner is needed, it is two files"


def test_public_names_are_pinned_and_there() -> None:
    assert plaudit.__all__ == sorted(plaudit.__all__)
    assert plaudit.__all__ == [
        "Completion",
        "ConfigError",
        "DataError",
        "Group",
        "InputError",
        "InternalError",
        "Label",
        "MissingExtraError",
        "ModelError",
        "PlauditError",
        "Preference",
        "Ranking",
        "Ratings",
        "RewardModel",
        "ScoreSettings",
        "Scorer",
        "Scores",
        "TemplateError",
        "Tie",
        "__version__",
        "load",
        "pair",
        "read",
        "write",
    ]
    assert len(plaudit.__all__) <= NAMES_BUDGET
    for name in plaudit.__all__:
        assert getattr(plaudit, name) is not None
    assert set(plaudit.__all__) <= set(dir(plaudit))
    with pytest.raises(AttributeError, match="no attribute 'socre'"):
        plaudit.socre  # noqa: B018


def flags_of(command: str) -> str:
    """A command's arguments and options on one line, as its parser takes them."""
    arguments = build_app([command]).assemble_argument_collection()
    single = [a for a in arguments if a.names != ("*",)]  # a record of options is listed beside its options
    words = [" ".join(a.names) if a.field_info.is_keyword else a.field_info.name.upper() for a in single]
    return f"{command}: " + " | ".join(words)


def test_flags_are_frozen() -> None:
    now = "".join(f"{flags_of(command.name)}\n" for command in sorted(COMMANDS, key=lambda c: c.name))
    if os.environ.get("PLAUDIT_WRITE_GOLDEN"):
        GOLDEN_FLAGS.parent.mkdir(exist_ok=True)
        GOLDEN_FLAGS.write_text(now, encoding="utf-8")
    assert now == GOLDEN_FLAGS.read_text(encoding="utf-8"), (
        "a flag came, went or changed its name: that is a promise to users; "
        "say why in CHANGELOG.md and renew the list with PLAUDIT_WRITE_GOLDEN=1"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_explains_itself_and_imports_late(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    function = command.load()
    assert main([command.name, "--help"]) == 0
    assert f"\n    plaudit {command.name}" in capsys.readouterr().out, "help needs a worked example"
    tops = {module for module, _ in imports_at_top(MODULES[function.__module__])}
    assert not tops & {"torch", "transformers", "datasets", "pyarrow", "numpy"}, "a command imports late"


def imports_at_top(path: Path) -> Iterator[tuple[str, int]]:
    """The outermost package of every import that runs when the file is imported."""
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], node.lineno


def in_fresh_python(code: str) -> str:
    """What a new interpreter prints; it sees the package as this one does."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "plaudit",
        "plaudit.formats",
        "plaudit.group",
        "plaudit.measure",
        "plaudit.tree",
        "plaudit.pack",
        "plaudit.cli.app",
    ],
)
def test_the_light_rooms_do_not_wake_torch(module: str) -> None:
    assert in_fresh_python(f"import {module}, sys; print('torch' in sys.modules)").strip() == "False"


def test_help_is_light_and_quick() -> None:
    code = "import sys; from plaudit.cli.app import main; main(['--help']); print('torch' in sys.modules)"
    seconds = []
    for _ in range(5):
        # The processor's time, which is that of the clock on a machine with nothing else to do.
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = in_fresh_python(code)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    assert text.rstrip().endswith("False")
    assert all(command.name in text for command in COMMANDS)
    assert min(seconds) < 0.3, f"best of five took {min(seconds):.2f} s"
