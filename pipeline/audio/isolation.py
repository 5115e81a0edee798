"""Process untrusted bytes in forked children, whose death costs only one item.

Decoders are C code: a crash on a damaged or hostile file cannot be caught as an exception. So a
child processes items one after the other and sends each result as a line of JSON, and the parent
knows at which item it died or took too long. That item is tried once more, as the first one of a
new child, and then given up; the items after it continue. Long signals are passed in files that
parent and children share (`storage.scratch`).

Children are forked, not spawned: a fork takes milliseconds, and has everything imported.
"""

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

from basilar.pipeline.defaults import CLIP_TIMEOUT
from basilar.pipeline.host import can_fork, require_fork

try:
    import resource
except ImportError:  # Windows, which has no forks either
    resource = None  # type: ignore[assignment]

_OUT_OF_MEMORY = 121  # exit status of a child that raised MemoryError
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")
_forking = threading.Lock()  # else another thread's child would hold this one's pipe open
_libc: Any = ctypes.CDLL(None) if can_fork() else None


class Lost(NamedTuple):
    """The result of an item that killed two children, or took each too long."""

    reason: Literal["crashed", "timeout"]
    message: str


def isolated(
    work: Callable[[Iterable[T]], Iterator[Any]],
    items: Sequence[T],
    *,
    children: int = 1,
    timeout: float = CLIP_TIMEOUT,
    known: Sequence[type[Exception]] = (),
) -> Iterator[tuple[int, Any]]:
    """Yield the index and the result of each item as they arrive; in order if there is one child.

    `work` runs in each child: it gets the child's remaining items and yields one result for each,
    which must be JSON. A result is a `Lost` if two children died or took more than `timeout`
    seconds. An item that runs out of memory is lost in one way or the other: the kernel decides.

    Errors of `work` are raised here: OSError as it was, the types in `known` from their arguments,
    any other as a RuntimeError with its traceback. Raises OSError if no child can be forked, and
    UnsupportedSystemError where there are no forks.

    >>> list(isolated(lambda items: (2 * item for item in items), [1, 2, 3]))
    [(0, 2), (1, 4), (2, 6)]
    """
    require_fork()
    indices = [deque(range(k, len(items), children)) for k in range(min(children, len(items)))]
    failed: dict[int, str] = {}
    running: list[_Child] = []

    def start(left: deque[int]) -> None:
        with _undisturbed():
            running.append(_Child(work, items, left))

    try:
        for left in indices:
            start(left)
        while running:
            child, ready = _next(running, timeout)
            if ready:
                results, failure = child.receive()
            else:
                results, failure = [], Lost("timeout", f"decoding took longer than {timeout:g} s")
            for index, message in results:
                if "error" in message:
                    raise _rebuild(message, known)
                yield index, message["result"]
            if failure is None:
                continue
            running.remove(child)
            child.end()
            if not child.left:
                continue
            index = child.left[0]
            if index in failed:
                child.left.popleft()
                both = dict.fromkeys((failed[index], failure.message))
                said = f"{failure.message}, twice" if len(both) == 1 else ", then ".join(both)
                yield index, failure._replace(message=said)
            failed[index] = failure.message
            if child.left:
                start(child.left)
    finally:
        for child in running:
            child.end()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay keyboard interrupts until the block ends: a fork would lose them.

    Python drops exceptions that are raised while it runs a fork's callbacks.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


class _Child:
    """A forked process that works through the items `left` to it, and its pipe."""

    def __init__(
        self, work: Callable[[Iterable[T]], Iterator[Any]], items: Sequence[T], left: deque[int]
    ) -> None:
        self.left = left
        self._said = b""
        parent = os.getpid()
        with _forking, warnings.catch_warnings():
            # Python warns about forking a process with threads: another thread may hold a lock
            # that nobody releases in the child. This child only decodes, takes no lock that others
            # hold (the allocators of C and Python are fork-safe), logs and prints nothing, and
            # exits without cleaning up.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pipe, write = os.pipe()
            try:
                self.pid = os.fork()
            except OSError:
                os.close(self.pipe)
                os.close(write)
                raise
            if self.pid == 0:
                _serve(work, (items[i] for i in left), write, parent)
            os.close(write)
        self.since = time.monotonic()

    def receive(self) -> tuple[list[tuple[int, Any]], Lost | None]:
        """The results that have arrived, by index; and how the child ended, if it did."""
        more = os.read(self.pipe, 1 << 16)
        *lines, self._said = (self._said + more).split(b"\n")
        results = [(self.left.popleft(), json.loads(line)) for line in lines]
        if lines:
            self.since = time.monotonic()
        return results, None if more else Lost("crashed", self._death())

    def end(self) -> None:
        """Kill the child if it is still running, and close its pipe."""
        if self.pid:
            # It may be gone: an interrupt may come right after it was waited for.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                self._reap()
        os.close(self.pipe)

    def _death(self) -> str:
        # Its pipe is closed, so it is dead or about to die.
        status = os.waitstatus_to_exitcode(self._reap())
        if status == _OUT_OF_MEMORY:
            return "the decoder ran out of memory"
        if status >= 0:
            return f"the decoder exited with status {status}"
        try:
            return f"the decoder died of signal {-status} ({signal.Signals(-status).name})"
        except ValueError:  # a real-time signal
            return f"the decoder died of signal {-status}"

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return status


def _next(children: list[_Child], timeout: float) -> tuple[_Child, bool]:
    """The next child to handle: one that sent something (True), or whose time is up (False)."""
    poll = select.poll()
    for child in children:
        poll.register(child.pipe, select.POLLIN)
    oldest = min(children, key=lambda child: child.since)
    wait = max(0.0, oldest.since + timeout - time.monotonic())
    ready = {pipe for pipe, _ in poll.poll(wait * 1000)}
    for child in children:
        if child.pipe in ready:
            return child, True
    return oldest, False


def _serve(
    work: Callable[[Iterable[T]], Iterator[Any]], items: Iterable[T], pipe: int, parent: int
) -> NoReturn:
    """Run the child, from its start to its exit."""
    status = 1
    try:
        _settle(parent)
        for result in work(items):
            _send(pipe, {"result": result})
        status = 0
    except MemoryError:
        status = _OUT_OF_MEMORY
    except BaseException as error:
        with contextlib.suppress(BaseException):
            _send(pipe, _describe(error))
    finally:
        os._exit(status)


def _settle(parent: int) -> None:
    """Detach a child from its parent's affairs, and make it the kernel's first choice to kill."""
    os.dup2(2, 1)  # libsndfile prints messages about damaged ALAC
    gc.freeze()  # a collection would write to, and so copy, all pages of the parent's objects
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it, and ends its children
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before PR_SET_PDEATHSIG was set
        os._exit(1)


def _send(pipe: int, message: dict[str, Any]) -> None:
    _write(pipe, json.dumps(message).encode() + b"\n")


def _write(file: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _describe(error: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    arguments = list(error.args)
    if isinstance(error, OSError):
        named = [] if error.filename is None else [os.fsdecode(error.filename)]
        arguments = [error.errno, error.strerror, *named] if error.errno else [str(error)]
    name = "OSError" if isinstance(error, OSError) else type(error).__name__
    text = "".join(traceback.format_exception(error))
    return {"error": name, "arguments": [a if _plain(a) else str(a) for a in arguments], "at": text}


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | None)


def _rebuild(message: dict[str, Any], known: Sequence[type[Exception]]) -> Exception:
    """Make the error that a child described."""
    kinds: list[type[Exception]] = [OSError, *known]
    for kind in kinds:
        if kind.__name__ == message["error"]:
            return kind(*message["arguments"])
    return RuntimeError(f"an error in the process that decodes:\n{message['at']}")
