"""Stop signals: finish the step, save, return."""

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While active, SIGTERM and the first SIGINT (Ctrl-C, the notebook's stop button) only ask.

    A second SIGINT interrupts at once. Outside the main thread signals cannot be caught, and the
    object simply never asks. Processes forked meanwhile (data workers) die of a signal as usual.
    """

    def __init__(self):
        self.asked = False
        self.process = os.getpid()
        self.previous = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.ask) for number in SIGNALS}
        return self

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Remember the wish to stop."""
        if os.getpid() != self.process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
