"""JudgeBench: a question, responses A and B, and which of them is right.

A dialect of `formats`, on `versus`. Invariant: `pair_id` is the Group's id; everything else keeps its name in `meta`.
"""

from __future__ import annotations

from plaudit.formats.dialect import Dialect
from plaudit.formats.versus import Versus

ROWS = Versus(
    title="JudgeBench",
    prompt="question",
    first="response_A",
    second="response_B",
    verdict="label",
    words=("A>B", "B>A", "A=B"),
    id_field="pair_id",
)

DIALECT = Dialect(
    name="judgebench",
    summary="JudgeBench pairs",
    needs=ROWS.fields,
    detect=ROWS.detect,
    to_group=ROWS.to_group,
    to_row=ROWS.to_row,
)
