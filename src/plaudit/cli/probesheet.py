"""What probing found, as people read it in a terminal, and as the folder keeps it.

Part of the shell (see `plaudit.cli`). Invariant: every shift that is shown has its interval beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from plaudit import __version__
from plaudit.corpus.reading import digest_file, is_file
from plaudit.formats import Reader
from plaudit.formats.sources import Source
from plaudit.probes import Expects, ProbeReport, ProbeResult
from plaudit.redaction import hide_url
from plaudit.runs.environment import say_command

if TYPE_CHECKING:
    from plaudit.score import RewardModel

TITLES = {
    Expects.SAME: "Edits that keep the meaning: the score should stay",
    Expects.LOWER: "Edits that make the answer worse: the score should fall",
}


def begin_report(model: str, net: RewardModel, sources: Sequence[Source], reader: Reader) -> dict[str, Any]:
    """Where the figures of a report come from."""
    return {
        "plaudit": __version__,
        "kind": "probe",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": say_command(sys.argv),
        "model": {
            "name": model,
            "folder": str(net.checkpoint.folder),
            "dtype": str(net.dtype).removeprefix("torch."),
            "device": str(net.device),
            "back_end": net.backend,
            "trained": net.checkpoint.card,
        },
        "data": [
            {
                "name": source.name,
                "path": source.name if source.is_copy else hide_url(source.place),
                "format": reader.dialect,
                "groups": reader.num_read - reader.num_bad if len(sources) == 1 else None,
                "sha256": digest_file(source) if is_file(source) else None,
            }
            for source in sources
        ],
    }


def show_probes(report: ProbeReport) -> Group:
    """A table for each kind of edit, and the verdicts in a sentence."""
    parts: list[Text | Table] = []
    for expects, title in TITLES.items():
        chosen = [result for result in report if result.probe.expects is expects]
        if chosen:
            parts += [Text(title, style="bold"), _draw_table(chosen), Text()]
    return Group(*parts, Text(report.sentence()))


def _draw_table(results: list[ProbeResult]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("probe", "prompts", "shift", "95%", "flips", "verdict"):
        table.add_column(name, justify="left" if name in ("probe", "verdict") else "right")
    for result in results:
        shift, flips = result.shift, result.flips
        table.add_row(
            result.probe.name,
            str(result.num_prompts),
            f"{shift.mean:+.2f}" if shift else "",
            f"{shift.interval[0]:+.2f} {shift.interval[1]:+.2f}" if shift and shift.interval else "",
            f"{flips.mean:.0%}" if flips else "",
            Text(str(result.verdict), style="red" if result.verdict.is_flag else ""),
        )
    return table
