"""FSDP on a CPU, for tests alone: accelerate would make DDP of it without a word.

Imported before anything makes an accelerator; as a script it is `plaudit` with that done. What it changes is one thing:
several processes on a CPU that ask for FSDP have it, as several GPUs that ask for it do.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

_as_written = state.AcceleratorState.__init__


def _with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _as_written(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is None or self.distributed_type != DistributedType.MULTI_CPU:
        return
    if self._mixed_precision != "no":
        fsdp_plugin.set_mixed_precision(self._mixed_precision)
    self.distributed_type = DistributedType.FSDP
    self.fsdp_plugin = fsdp_plugin
    state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


state.AcceleratorState.__init__ = _with_fsdp

if __name__ == "__main__":
    from plaudit.cli.app import main

    sys.exit(main())
