import os
import signal
import threading
import time

import pytest

from basilar.pipeline.build import status
from basilar.pipeline.build.interrupts import interruptible


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]


def interrupt(seconds=20.0):
    signal.raise_signal(signal.SIGINT)
    time.sleep(seconds)  # is cut short when it gets through


def test_the_keyboard_interrupts_and_handlers_are_as_before():
    before = handlers()
    with pytest.raises(KeyboardInterrupt), interruptible():
        interrupt()
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_forked_task_leaves_it_to_the_process_that_began():
    with interruptible():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)  # would raise here
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_interrupt_waits_until_what_is_drawn_is_drawn():
    drawn = []

    def draw():
        with status.drawing:
            signal.raise_signal(signal.SIGINT)
            drawn.append(True)
        time.sleep(20.0)  # the alarm cuts it short

    with pytest.raises(KeyboardInterrupt), interruptible():
        draw()
    assert drawn


def test_what_ignores_the_keyboard_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            interrupt(0)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_changes_no_handler():
    before, seen = handlers(), []

    def run():
        with interruptible():
            seen.extend(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == before
