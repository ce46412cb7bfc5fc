"""LLMBar: an instruction as `input`, two outputs, and which of them follows it.

A dialect of `formats`, on `versus`. Invariant: the label is 1 or 2, and nothing else.
"""

from __future__ import annotations

from plaudit.formats.dialect import Dialect
from plaudit.formats.versus import Versus

ROWS = Versus(title="LLMBar", prompt="input", first="output_1", second="output_2", verdict="label", words=(1, 2, None))

DIALECT = Dialect(
    name="llmbar",
    summary="LLMBar pairs",
    needs=ROWS.fields,
    detect=ROWS.detect,
    to_group=ROWS.to_group,
    to_row=ROWS.to_row,
)
