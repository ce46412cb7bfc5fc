"""Options that several commands share, so that a word means the same in all of them.

Part of the shell (see `plaudit.cli`); imports the library late. Invariant: an option that two commands take is declared
here once, with its short name and its help; options that always come together are one record.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from plaudit.evaluate import Asking
    from plaudit.intake import ReadSettings

Out = Annotated[str, Parameter(alias="-o", metavar="PATH", help="Where the result goes.")]
"""`--out`, `-o`: a file or a folder; `-` is stdout where a command allows it."""

Target = Annotated[str | None, Parameter(name="--out", alias="-o", metavar="PATH", help="Where the result goes.")]
"""`--out`, `-o`, where a command can do something without it."""

ReportFolder = Annotated[
    Path, Parameter(name="--out", alias="-o", metavar="DIR", help="The folder of the report and the scores.")
]
"""`--out`, `-o`, of commands that leave a report."""

Limit = Annotated[
    int | None, Parameter(metavar="ROWS", help="Rows of each set, drawn by lot; all of them if not given.")
]
"""`--limit`, of commands that measure."""

Dtype = Annotated[
    Literal["float32", "bfloat16", "auto"],
    Parameter(help="What the backbone computes in; auto is bfloat16 where the machine is fast at it."),
]
"""`--dtype`, on every command that runs a model."""

Device = Annotated[
    str | None, Parameter(metavar="NAME", help="Where the model runs: cpu, cuda, cuda:1; a GPU if there is one.")
]
"""`--device`, on every command that runs a model."""

ScoreAt = Annotated[
    Literal["last", "closing", "eos", "before_pad"] | None,
    Parameter(
        name="--score-position",
        help="The token whose score is read; if not given, the one that the model's folder or its maker says.",
    ),
]
"""`--score-position`, on every command that scores with a model."""

Format = Annotated[str | None, Parameter(metavar="NAME", help="Read the rows as this dialect instead of detecting it.")]
"""`--format`, on every command that reads rows."""

BadRows = Annotated[
    str,
    Parameter(metavar="error|skip=PATH", help="A bad row stops the command, or is written to PATH with its reason."),
]
"""`--bad-rows`, on every command that reads rows."""

Plain = Annotated[bool, Parameter(help="Prompt + completion as plain text, without the chat template.")]
"""`--plain`, on every command that renders rows."""

KeepSystem = Annotated[bool, Parameter(help="Left truncation keeps the system message.")]
"""`--keep-system`, on every command that can cut rows."""

Overlengths = Annotated[
    Literal["error", "drop", "left", "right", "unscored"],
    Parameter(name="--overlength", help="What happens to what is longer: cut on the left or right, or not scored."),
]
"""`--overlength`, on every command that renders rows."""

MaxLength = Annotated[
    int | None,
    Parameter(metavar="TOKENS", help="What a completion may have with its prompt; if not given, the model's context."),
]
"""`--max-length`, on every command that renders rows."""

Budget = Annotated[
    int | None,
    Parameter(
        name=["--budget", "--tokens-per-pack"],
        metavar="TOKENS",
        help="Computed at once; found from free memory if not given.",
    ),
]
"""`--budget`, on every command that runs a model over packs."""

LengthCorrected = Annotated[bool, Parameter(help="Choose by `length_corrected_scores`.")]
PerToken = Annotated[bool, Parameter(help="Choose by `per_token_scores`.")]
"""`--length-corrected`, `--per-token`: which column of a scored file choosing goes by."""

Scored = Annotated[list[str], Parameter(help="Files that plaudit score wrote.")]
"""SCORED, on commands that choose."""

Shape = Annotated[
    str | None,
    Parameter(
        name="--as",
        metavar="SHAPE",
        help="sft, messages, native, rs; for pairs preference, native, iter_dpo; for conditional also csft.",
    ),
]
"""`--as`: how chosen completions are written."""

Margin = Annotated[str | None, Parameter(metavar="LOW:HIGH", help="pairs: how far apart the two score, as in 0.5:2.")]
"""`--margin`: a band of score gaps."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """How rows of any origin are read: `--format` to `--bad-rows`, with names for the columns of preference rows."""

    format: Format = None
    prompt_key: Annotated[str | None, Parameter(metavar="COLUMN", help="The column that holds the prompt.")] = None
    chosen_key: Annotated[
        str | None, Parameter(metavar="COLUMN", help="The column that holds the preferred answer.")
    ] = None
    rejected_key: Annotated[str | None, Parameter(metavar="COLUMN", help="The column that holds the other answer.")] = (
        None
    )
    bad_rows: BadRows = "error"

    def settings(self) -> ReadSettings:
        """The same, as the library has it."""
        from plaudit.formats import Columns
        from plaudit.intake import ReadSettings

        columns = Columns(prompt=self.prompt_key, chosen=self.chosen_key, rejected=self.rejected_key)
        return ReadSettings(format=self.format, columns=columns, bad_rows=self.bad_rows)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """How a model that is measured is loaded, and how text becomes its scores: `--dtype` to `--budget`."""

    dtype: Dtype = "auto"
    device: Device = None
    plain: Plain = False
    max_length: MaxLength = None
    overlength: Overlengths = "error"
    keep_system: KeepSystem = False
    budget: Budget = None
    score_position: ScoreAt = None

    def settings(self) -> Asking:
        """The same, as the library has it."""
        from plaudit.evaluate import Asking

        return Asking(**asdict(self))


ROWS, MODEL = Rows(), Model()
"""What nobody asked to be otherwise."""
