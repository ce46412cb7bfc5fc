"""`plaudit doctor`: what this machine is, what it can do, and which attention back end is used, and why."""

from __future__ import annotations

import dataclasses
from typing import Any

from plaudit.cli.checkup import show_examination
from plaudit.cli.options import Device, Dtype
from plaudit.cli.progress import say


def doctor(model: str | None = None, /, *, dtype: Dtype = "auto", device: Device = None) -> dict[str, Any]:
    """Versions, devices, the measured speed of matrix products, and which attention back end is used, and why.

    Every back end of the device is tried on MODEL now: two rows packed, against each alone through plain transformers.
    Without MODEL, a tiny random Llama is made in memory for that. Takes some seconds.

    For example:

        plaudit doctor
        plaudit doctor smollm2 --dtype float32

    Parameters
    ----------
    model
        A folder, a hub name, or smollm2; a language model without a reward head will do.
    """
    say("doctor: looking at this machine, and measuring it for a second or two")
    from plaudit.trials import examine

    found = examine(model, dtype=dtype, device=device)
    show_examination(found)
    return dataclasses.asdict(found)
