"""SIGTERM, SIGINT and SIGHUP become a wish: finish this step, save, leave. A second SIGINT leaves at once.

A SIGHUP that is ignored, as under nohup, stays ignored: the run is to outlive its terminal.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """Whether somebody asked the run to stop."""

    signal: int | None = None

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal: 130 for Ctrl-C, 143 for SIGTERM; 0 where none has come."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def listening() -> Iterator[Stop]:
    """Collect signals while the block runs; the previous handlers return afterwards.

    Outside the main thread, where Python delivers no signals, nothing is collected.

    Raises:
        KeyboardInterrupt: A second SIGINT came; checkpoints are whole or absent at any moment, so nothing is lost by
        it.
    """
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = stop.signal or number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wanted = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
