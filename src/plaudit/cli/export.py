"""`plaudit export`: a run or a folder in, the folder that every consumer loads out, proven."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from plaudit.cli import options as take
from plaudit.cli.progress import say, say_notes, show


def export(
    run: str,
    /,
    *,
    out: take.Target = None,
    merge: bool = False,
    head_prefix: str | None = None,
    dtype: take.Dtype = "auto",
    device: take.Device = None,
    check: bool = False,
    score_position: take.ScoreAt = None,
) -> dict[str, Any]:
    """Write RUN as a folder that transformers, TRL, vLLM, SGLang and OpenRLHF load as it is.

    What is written is loaded by plain transformers in a fresh process, and has
    to give the same scores; else nothing is written, and the reason is said.
    The folder's README.md is its model card, with the run's numbers in it.

    For example:

        plaudit export run --out reward-model --merge --check

    Parameters
    ----------
    run
        The folder of a run, of a model or of a LoRA adapter; or a hub name.
    merge
        Put the LoRA adapter into the weights: a plain folder, with the same scores.
    head_prefix
        What the head is called in the file, for OpenRLHF; plain transformers finds `score` alone.
    check
        Ask every consumer, and print what each makes of the folder; without --out, of RUN as it is.
    """
    from plaudit.errors import ConfigError

    if out is None and not check:
        raise ConfigError("no --out came, the folder to write was needed; or --check alone, to look at RUN as it is")
    say(f"export: {run} -> {out}" if out else f"export: checking {run}")
    from plaudit.export import ExportSettings, check_source, export_model

    if out is None:
        return {
            "out": None,
            "consumers": _show_consumers(check_source(run, device=device, score_position=score_position)),
        }
    settings = ExportSettings(
        merge=merge,
        head_prefix=head_prefix,
        dtype=dtype,
        device=device,
        check=check,
        score_position=score_position,
    )
    exported = export_model(run, out, settings)
    say_notes(exported.notes)
    published = exported.published
    kind = "adapter" if published.is_adapter else "merged model" if exported.merged else "model"
    show(f"{out}: {kind}, {published.dtype}")
    if published.proof is not None:
        show(published.proof.sentence())
    return {
        "out": out, "kind": kind, "dtype": published.dtype, "merged": exported.merged, "notes": list(exported.notes),
        "proof": published.proof.as_json() if published.proof else None,
        "consumers": _show_consumers(exported.consumers) if check else None,
    }  # fmt: skip


def _show_consumers(consumers: Sequence[Any]) -> list[dict[str, Any]]:
    from rich.table import Table

    table = Table("consumer", "ok", "how", "float32", "own dtype", box=None, pad_edge=False)
    for found in consumers:
        ok = "not tested" if found.ok is None else "yes" if found.ok else "no"
        exact = "" if found.difference is None else f"{found.difference:.1e}"
        own = "" if found.own_difference is None else f"{found.own_difference:.1e} {found.own_dtype}"
        table.add_row(found.name, ok, found.how, exact, own)
    show(table)
    for found in consumers:
        show(f"{found.name}: {found.why}")
    return [dataclasses.asdict(found) for found in consumers]
