"""The page of training shows every setting as it is declared, and names everything that a run leaves."""

from __future__ import annotations

import os
import re

from pages import ROOT
from plaudit.config.table import config_table
from plaudit.meters import SUMS, summarize

PAGE = ROOT / "docs" / "training.md"
BEGIN, END = "<!-- the table of settings -->\n", "<!-- end of the table -->\n"


def test_the_table_of_settings_is_the_declaration() -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    shown, _, tail = rest.partition(END)
    if os.environ.get("PLAUDIT_WRITE_GOLDEN"):
        PAGE.write_text(f"{head}{BEGIN}{config_table()}{END}{tail}", encoding="utf-8")
        return
    assert shown == config_table(), "settings have changed: PLAUDIT_WRITE_GOLDEN=1 pytest tests/docs renews the table"


def test_every_number_of_a_run_is_explained() -> None:
    found = summarize(dict.fromkeys(SUMS, 1.0), [1.0, 1.0], 1.0)
    page = PAGE.read_text(encoding="utf-8")
    rows = set(re.findall(r"`(\w+)`", page.partition("## Numbers and their meaning")[2].partition("\n## ")[0]))
    assert {*found, "grad_norm", "learning_rate", "skipped_steps", "mfu"} <= rows
