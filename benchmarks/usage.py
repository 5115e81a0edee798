"""What a call costs with all the processes it starts: seconds, CPU seconds, peak memory."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_EVERY = 0.02  # s


@dataclass(frozen=True)
class Usage:
    """`main` and `worker` are peaks of resident memory in bytes: of the caller, of any other."""

    result: Any
    seconds: float
    cpu: float
    main: int
    worker: int


def measured(call: Callable[..., Any], *arguments: Any, warm: tuple[Any, ...] = ()) -> Usage:
    """`call(*arguments)` in a process of its own, after `call(*warm)` if there is any."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, call, arguments, warm).result()


def _measure(call: Callable[..., Any], arguments: Any, warm: Any) -> Usage:
    if warm:
        call(*warm)
    os.sync()
    peaks: dict[int, int] = {}
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(peaks, ended))
    watch.start()
    started, before = time.perf_counter(), _cpu()
    result = call(*arguments)
    seconds, cpu = time.perf_counter() - started, _cpu() - before
    ended.set()
    watch.join()
    main = peaks.pop(os.getpid())
    return Usage(result, seconds, cpu, main, max(peaks.values(), default=0))


def _watch(peaks: dict[int, int], ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        for pid in _family():
            with suppress(OSError, IndexError):  # it has just ended
                text = Path(f"/proc/{pid}/status").read_text()
                peaks[pid] = int(text.split("VmHWM:")[1].split()[0]) * 1024


def _cpu() -> float:
    """CPU seconds so far of this process and its descendants, alive or waited for."""
    ticks = sum(sum(map(int, fields[11:15])) for fields in _family().values())
    return ticks / os.sysconf("SC_CLK_TCK")


def _family() -> dict[int, list[str]]:
    """This process and its descendants, with what follows the name in /proc/PID/stat."""
    every: dict[int, list[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                text = (folder / "stat").read_text()
                every[int(folder.name)] = text[text.rindex(")") + 2 :].split()
    found = {os.getpid(): every[os.getpid()]}
    while True:
        new = {p: f for p, f in every.items() if int(f[1]) in found and p not in found}
        if not new:
            return found
        found |= new
