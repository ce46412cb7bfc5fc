"""A dialect: one way to spell Groups in rows, with the test that recognises it.

Third step of `formats`: the record that every dialect file fills. Invariant: reading what a dialect wrote gives the
same beliefs about the same conversations, and a Group that it cannot say is refused with a sentence, never trimmed to
fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.errors import DataError
from plaudit.formats.content import Raw, list_names
from plaudit.group import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The user's own names for the columns `prompt`, `chosen` and `rejected`."""

    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    def renamed(self) -> dict[str, str]:
        """Our name -> the user's name, for those that differ."""
        pairs = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        return {ours: theirs for ours, theirs in pairs.items() if theirs is not None and theirs != ours}

    def read(self, raw: Raw) -> Raw:
        """`raw` under our names. A column that was in the way stays, as `NAME_column`."""
        names = self.renamed()
        for ours, theirs in names.items():
            if theirs not in raw:
                raise DataError(
                    f"it was named as the {ours} column and is missing; the columns that came are {list_names(raw)}",
                    field=theirs,
                )
        taken = set(names.values())
        row = {(f"{name}_column" if name in names else name): value for name, value in raw.items() if name not in taken}
        return row | {ours: raw[theirs] for ours, theirs in names.items()}

    def write(self, row: Raw) -> Raw:
        """`row` under the user's names."""
        names = self.renamed()
        renamed = {names.get(name, name): value for name, value in row.items()}
        if len(renamed) != len(row):
            raise DataError(f"two columns would have one name; the columns are {list_names(row)}; choose other names")
        return renamed


def no_advice(raw: Raw) -> str | None:
    """Most dialects have nothing to add to the note that names them."""
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one kind of row is recognised, read and written.

    `also_reads` names other dialects whose rows this one reads with the same meaning; any other row in a file that
    began in this dialect is refused. `advise` says what a person should know of a file that begins so. `is_rated` says
    that the labels are in the column `scores`, which scoring a file would replace. `for_file` gets a file's first rows
    and returns the dialect that reads the whole file, for codings that one row alone does not decide.
    """

    name: str
    summary: str
    needs: tuple[str, ...]
    detect: Callable[[Raw], bool]
    to_group: Callable[[Raw], Group]
    to_row: Callable[[Group], Raw]
    also_reads: tuple[str, ...] = ()
    advise: Callable[[Raw], str | None] = no_advice
    is_rated: bool = False
    for_file: Callable[[Sequence[Raw]], Dialect] | None = None

    def describe(self) -> str:
        """One line for a person: the name, what the rows are, the columns they need."""
        return f"{self.name}: {self.summary} (columns {', '.join(self.needs)})"

    def read(self, raw: Raw, columns: Columns | None = None) -> Group:
        """The Group that `raw` says, or a DataError."""
        return self.to_group(columns.read(raw) if columns is not None else raw)

    def write(self, group: Group, columns: Columns | None = None) -> Raw:
        """The row that says `group`, or a DataError that tells what this dialect cannot say."""
        row = self.to_row(group)
        return columns.write(row) if columns is not None else row
