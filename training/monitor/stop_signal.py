"""Stopping by Ctrl-C or SIGTERM: the first signal lets the iteration end and saves everything, the second one kills as always.

torchrun passes signals on that its processes have received themselves: there, only torchrun kills.
"""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from ..distributed import ranks
from ..listener import Listener

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals(Listener):
    """Asks a run to stop once a signal has come, while its handler is installed."""

    def __init__(self):
        self.received = 0
        """The last signal's number; 0: none."""

    def wants_stop(self) -> bool:
        return self.received > 0

    @contextmanager
    def installed(self) -> Generator["StopSignals", None, None]:
        """Handles signals meanwhile."""
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for other in SIGNALS if ranks.world_size() == 1 else ():
            signal.signal(other, signal.SIG_DFL)
