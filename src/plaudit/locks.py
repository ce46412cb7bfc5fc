"""Which threads may use a model at the same time: any number of forwards, or one change.

Attention is chosen in a transformers configuration that all layers share, and adapters are merged in place. A forward
that runs beside such a change would use half of each. So forwards hold the lock together, and a change holds it alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from plaudit.errors import InternalError


class ForwardLock:
    """Shared by forwards, exclusive for changes. A thread that holds it may take it again in the same way, or share it.

    A change that waits goes before forwards that come later, so that a stream of forwards cannot keep it waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._forwards: Counter[int] = Counter()
        self._owner: int | None = None
        self._depth = 0
        self._num_waiting = 0

    def __deepcopy__(self, memo: object) -> ForwardLock:
        """A copied model has a lock of its own."""
        return ForwardLock()

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """For the time of a forward; waits while another thread changes the model."""
        me = threading.get_ident()
        with self._changed:
            # A thread that is inside already never waits: whoever waits for the lock waits for this thread.
            if self._owner != me and not self._forwards[me]:
                self._changed.wait_for(lambda: self._owner is None and not self._num_waiting)
            self._forwards[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._forwards[me] -= 1
                if not self._forwards[me]:
                    del self._forwards[me]
                    self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """For the time of a change; waits until no other thread is in a forward."""
        me = threading.get_ident()
        with self._changed:
            if self._owner != me:
                if self._forwards[me]:
                    raise InternalError("a model was to be changed inside of its own forward")
                self._num_waiting += 1
                try:
                    self._changed.wait_for(lambda: self._owner is None and not self._forwards)
                finally:
                    self._num_waiting -= 1
                    self._changed.notify_all()  # if the wait was interrupted, forwards wait for nothing
                self._owner = me
            self._depth += 1
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._owner = None
                    self._changed.notify_all()
