"""One family of errors, each with two parents: ours, and the standard one it refines.

    PlauditError
    ├── InputError(ValueError)      the user's input; the command line exits 2
    │   ├── ConfigError             a setting: what came, what was needed, what to do
    │   ├── DataError               a row: file, line, field
    │   │   └── CodingError         a whole column of labels whose coding is unknown
    │   ├── TemplateError           tokens: a template or a tokenizer that cannot be trusted
    │   ├── ModelError              a folder that is not the reward model it should be
    │   └── MissingExtraError(ImportError)   an extra that is not installed
    └── InternalError(RuntimeError) our fault; the command line exits 1

A message is one sentence that says what came, what was needed, and what to do. The caller who has to act on the kind of
a failure catches the kind; everyone else lets it rise to the edge (`cli/`), where it is printed without a traceback.
"""

from __future__ import annotations

from plaudit.redaction import hide_url


class PlauditError(Exception):
    """The root of the family; catch it to catch everything plaudit raises on purpose."""


class InputError(PlauditError, ValueError):
    """The user's input is at fault; the command line exits 2."""


class ConfigError(InputError):
    """A setting that cannot be used as it came."""


class DataError(InputError):
    """A row, a file or a source of rows that cannot be used; carries where it was found."""

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        file = hide_url(file) if file else file
        self.reason, self.file, self.line, self.field = message, file, line, field
        place = ", ".join(
            [
                *([file] if file else []),
                *([f"line {line}"] if line is not None else []),
                *([f"field {field!r}"] if field else []),
            ]
        )
        super().__init__(f"{place}: {message}" if place else message)


class CodingError(DataError):
    """It is unknown what the values of a label column mean. `--bad-rows skip` does not apply.

    Which rows would be skipped depends on their labels, so the labels that remain would be biased.
    """


class TemplateError(InputError):
    """Text that cannot be turned into tokens honestly."""


class ModelError(InputError):
    """A model folder or name that is not what was asked for."""


class MissingExtraError(InputError, ImportError):
    """An optional dependency is not installed; says the one line that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        self.feature, self.extra = feature, extra
        super().__init__(f"{feature} needs an extra that is not installed; run: pip install 'plaudit[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        # An exception is rebuilt from its one message by default, and this one is made of two words.
        return type(self), (self.feature, self.extra)


class InternalError(PlauditError, RuntimeError):
    """Something plaudit promised did not hold; the command line exits 1."""
