"""What a call costs with all the processes it starts: seconds, CPU seconds, peak memory."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

_EVERY = 0.05  # s between looks at memory


@dataclass(frozen=True)
class Usage:
    """`main` and `worker` are peaks of resident memory in bytes: of the caller, of any other.

    The kernel's own (VmHWM), and so exact; pages that forks share are counted in each of them.
    """

    result: Any
    seconds: float
    cpu: float
    main: int
    worker: int


def measured(call: Callable[..., Any], *arguments: Any, warm: tuple[Any, ...] = ()) -> Usage:
    """`call(*arguments)` in a process of its own, after `call(*warm)` if there is any.

    Memory is looked at from here, so that looking costs the call nothing. What the call starts is
    forked, as Python does it on Linux: a spawned process would hand down that it spawns.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _fork) as pool:
        pid = pool.submit(os.getpid).result()
        if warm:
            pool.submit(call, *warm).result()
        os.sync()
        running = pool.submit(_timed, call, arguments)
        peaks: dict[int, int] = {}
        while wait([running], timeout=_EVERY).not_done:
            for member in _family(pid):
                with suppress(OSError, IndexError):  # it has just ended
                    text = Path(f"/proc/{member}/status").read_text()
                    peaks[member] = int(text.split("VmHWM:")[1].split()[0]) * 1024
        result, seconds, cpu = running.result()
        return Usage(result, seconds, cpu, peaks.pop(pid, 0), max(peaks.values(), default=0))


def _fork() -> None:
    set_start_method("fork", force=True)


def _timed(call: Callable[..., Any], arguments: Any) -> tuple[Any, float, float]:
    started, before = time.perf_counter(), _cpu()
    result = call(*arguments)
    return result, time.perf_counter() - started, _cpu() - before


def _cpu() -> float:
    """CPU seconds so far of this process and its descendants, alive or waited for."""
    ticks = 0
    for pid in _family(os.getpid()):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/stat").read_text()
            ticks += sum(map(int, text[text.rindex(")") + 2 :].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))
