"""Being asked to stop: the first signal lets the iteration end and saves everything, the second one kills as always.

torchrun hands signals on that its processes have heard themselves: there, only torchrun kills.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..distributed import ranks
from ..listener import Listener

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals(Listener):
    """Hears them while it is `listening`."""

    def __init__(self):
        self.heard = 0

    def wants_stop(self) -> bool:
        return self.heard > 0

    @contextmanager
    def listening(self) -> Iterator["Signals"]:
        before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame) -> None:
        self.heard = number
        for each in SIGNALS if ranks.count() == 1 else ():
            signal.signal(each, signal.SIG_DFL)
