"""What a training run is told: a file, `section.key=value`, and the reasons for everything nobody said.

Stands on `errors` alone; pydantic and YAML, no torch. In reading order:

    elsewhere     what other tools call a setting         schema        every setting, and what must agree
    kinds         a setting's type in words               yamltext      YAML 1.2, with lines
    files         YAML, TOML, JSON; whole or not there    settled       values with their origins
    complaints    why a value cannot be used              reading       file + command line -> Settled
    table         the reference, as Markdown

Invariant: an unknown key, a value that does not fit, and settings that contradict each other stop a run before it
begins, with a sentence; and every value says where it came from.
"""

from __future__ import annotations

from plaudit.config.reading import is_override, read_config
from plaudit.config.schema import DataPart, LossName, TrainConfig
from plaudit.config.settled import Difference, Setting, Settled, compare_configs
from plaudit.config.table import config_table

__all__ = [
    "DataPart",
    "Difference",
    "LossName",
    "Setting",
    "Settled",
    "TrainConfig",
    "compare_configs",
    "config_table",
    "is_override",
    "read_config",
]
