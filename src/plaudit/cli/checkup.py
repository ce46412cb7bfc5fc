"""What `plaudit doctor` found, as people read it: the machine first, the back ends and what is off last.

Part of the shell (see `plaudit.cli`). Invariant: everything that the examination holds is shown, and nothing is added.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from plaudit.cli.sheet import Row, format_bytes, show_section

if TYPE_CHECKING:
    from plaudit.machine import Processor
    from plaudit.trials import Backend, Examination


def show_examination(found: Examination) -> None:
    """Print the whole examination: what is last on the screen is what one came for."""
    show_section("Versions", [(name, version or "none") for name, version in found.versions.items()])
    show_section("Devices", list_devices(found), note=f"{platform.system()} {platform.machine()}")
    show_section("Installed", list_installed(found))
    show_section("Environment", list(found.environment.items()) or [("none", "of the variables that matter is set")])
    show_section("Matrix products", list_peaks(found), note="the best of half a second each")
    show_section("Tokens a pack", list_budgets(found), note="chosen from the memory that is free now")
    show_section("Model", list_model(found))
    show_section("Attention", [row_of(backend) for backend in found.backends], note="tried on this model, now")
    show_section("Warnings", [("- off", text) for text in found.warnings] or [("+ none", "nothing is off")])


def list_devices(found: Examination) -> list[Row]:
    """The CPU on three lines, and a line for each GPU."""
    cpu = found.processor
    return [
        ("cpu", cpu.model),
        ("", f"{count(cpu.cores, 'core')}, {count(cpu.threads, 'thread')}; {', '.join(cpu.instructions) or 'no AVX2'}"),
        ("", describe_memory(cpu)),
        *((g.name, f"{g.model}, sm {g.capability}; {free(g.memory_free, g.memory_total)}") for g in found.gpus),
        *([] if found.gpus else [("gpu", "none that answers")]),
        ("auto dtype", f"{found.auto_dtype}: {found.auto_reason}"),
    ]


def describe_memory(cpu: Processor) -> str:
    """Free, total, and what is swapped out."""
    swapped = f"; {format_bytes(cpu.swap_used)} swapped out" if cpu.swap_used else ""
    return free(cpu.memory_free, cpu.memory_total) + swapped


def free(memory: int, total: int | None) -> str:
    """`3.2 GiB of 16 GiB free`."""
    return f"{format_bytes(memory)}{f' of {format_bytes(total)}' if total else ''} free"


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def list_installed(found: Examination) -> list[Row]:
    """The extras, the embedded model, the cache."""
    return [
        *(("+ " + e.name, "all there") for e in found.extras if not e.missing),
        *(("- " + e.name, f"lacks {', '.join(e.missing)}; run: {e.install}") for e in found.extras if e.missing),
        ("smollm2", found.embedded.state),
        ("cache", f"{found.cache.folder} ({format_bytes(found.cache.bytes)})"),
    ]


def list_peaks(found: Examination) -> list[Row]:
    """A line a precision."""
    return [(p.dtype, f"{p.gflops:,.0f} GFLOP/s on {p.device}") for p in found.peaks]


def list_budgets(found: Examination) -> list[Row]:
    """A line a model, or a size."""
    return [(f"{b.tokens:,}", f"for {b.model} (hidden size {b.hidden_size:,})") for b in found.budgets]


def list_model(found: Examination) -> list[Row]:
    """What was looked at."""
    model = found.model
    name = model.name or "a tiny random Llama, made in memory; name a model to try that one"
    context = f", context {model.context_length:,}" if model.context_length else ""
    return [
        ("model", name),
        ("", f"{model.architecture}, {model.parameters:,} parameters{context}"),
        ("", f"{model.dtype} on {model.device}"),
        *(("note", note) for note in model.notes),
    ]


def row_of(backend: Backend) -> Row:
    """A back end: a mark, its name, whether it is used, why."""
    mark = {True: "+ ", False: "- ", None: "  "}[backend.agrees]
    return mark + backend.name, f"{'USED: ' if backend.is_used else ''}{backend.reason}"
