"""The folder of a report: made before anything dear is done, and what is written into it at the end.

Beside `page`; every command that reports writes through here. Invariant: report.json is written last, so a folder that
has it has everything that it speaks of; each file is whole or not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plaudit.errors import InputError
from plaudit.files import write_file
from plaudit.report.page import write_page

REPORT, PAGE = "report.json", "report.html"


def make_folder(folder: Path) -> None:
    """The folder and those above it; InputError where none can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: a folder was needed there, and it cannot be made a folder ({error.strerror}); "
            "name another place with --out"
        ) from None


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """The page of a report, then its JSON; InputError where the disk refuses."""
    try:
        write_page(report, folder / PAGE)
        write_file(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(
            f"{folder}: the report cannot be written ({error.strerror}); free the way, and run the same command again"
        ) from None
