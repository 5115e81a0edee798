"""Ctrl-C in a build of many processes."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from basilar.pipeline.build import status


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt from the keyboard end the block in this process alone.

    The terminal interrupts forked processes, too: they ignore it, and this process ends them. It is
    raised again until it is seen, since Python drops what callbacks of a fork raise.
    """
    found = signal.getsignal(signal.SIGINT)
    if found == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() == owner:
            wait = status.drawing.locked()
            signal.setitimer(signal.ITIMER_REAL, 0.1 if wait else 1.0)
            if not wait:
                raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
