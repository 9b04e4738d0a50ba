"""Signals that ask a training to stop: it ends its step, saves its state and exits."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

GOES_ON = "the next run goes on from the last saved state"


class Interrupted(BaseException):
    """A signal asked the job to stop, and its steps are saved. Not an Exception, so that no handler swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: stopped; {GOES_ON}, if there is one.")
        self.exit_code = 128 + number


@dataclass
class StopRequest:
    """The signal that arrived, if any. `unsaved`: whether steps were made since the last saved state."""

    number: int | None = None
    unsaved: bool = False

    def raise_if_asked(self) -> None:
        if self.number is not None:
            raise Interrupted(self.number)

    def note(self, number: int, frame: object) -> None:
        """Note the signal. Exit at once if nothing would be lost, as while the teacher's features are computed.

        A cluster kills the job soon after the signal.
        """
        self.number = number
        if not self.unsaved:
            self.raise_if_asked()


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note SIGINT, SIGTERM (a cluster's preemption) and SIGHUP (a closed terminal) instead of dying from them."""
    request = StopRequest()
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:  # as under nohup
        numbers.append(hang_up)
    previous = {number: signal.signal(number, request.note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
