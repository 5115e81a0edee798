"""Luigi's and MLflow's web pages, by their own servers in child processes.

Neither has authentication: they listen on loopback, and nowhere else. Each is the head of a process
group, which ends with this process.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from basilar.pipeline.errors import BasilarError
from basilar.pipeline.tracking.location import DATABASE, embedded_tracking_uri

HOST = "127.0.0.1"
_PATIENCE = 120.0  # seconds until a server that does not answer is given up
_GRACE = 5.0  # seconds for a server to end by itself
_POLL = 0.1  # seconds
# What the servers do first: have the kernel tell them to end if this process is killed.
_WITH_PARENT = f"import ctypes; ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})"
_LINES = 10  # of what a server printed last
_ENVIRONMENT = {
    **{"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes, for language models
}


class PortError(BasilarError, RuntimeError):
    """A port that cannot be listened on; the message names it, and says what to do."""


class ServerError(BasilarError, ConnectionError):
    """A server that ended or does not answer; the message has what it printed last."""


@dataclass(frozen=True)
class Addresses:
    """Where the servers listen, and MLflow's page of the runs: its first one if there are none."""

    luigi: str
    mlflow: str
    runs: str


@dataclass(frozen=True)
class Server:
    """A server to run: its name, its command, and the URL that answers when it is ready."""

    name: str
    command: list[str]
    ready: str


def serve(
    root: Path, *, luigi_port: int, mlflow_port: int, tell: Callable[[Addresses], None]
) -> None:
    """Serve Luigi's page, and MLflow's of what a root logs, until this process is told to stop.

    `tell` hears the addresses when both answer. Port 0 is any free one. Raises PortError;
    ServerError if a server does not start, or ends; ValueError for a root without an MLflow store.
    """
    tracker, folder = embedded_tracking_uri(root), root / "mlflow"
    luigi_port, mlflow_port = free_ports(luigi_port=luigi_port, mlflow_port=mlflow_port)
    luigi, mlflow = f"http://{HOST}:{luigi_port}", f"http://{HOST}:{mlflow_port}"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="basilar-ui-") as temporary:
        state = str(Path(temporary) / "state")
        servers = [
            Server(
                "luigid",
                [
                    *_python("from luigi.cmdline import luigid; luigid()"),
                    *("--address", HOST, "--port", str(luigi_port), "--state-path", state),
                ],
                f"{luigi}/api/is_paused",
            ),
            Server(
                "mlflow ui",
                [
                    *_python("from mlflow.cli import cli; cli()"),
                    *("ui", "--host", HOST, "--port", str(mlflow_port), "--workers", "1"),
                    *("--backend-store-uri", tracker),
                ],
                f"{mlflow}/health",
            ),
        ]
        # Two first users of one SQLite database corrupt it: a build may be the other.
        lock = FileLock(folder / ".lock")

        def ready() -> None:
            lock.release()
            tell(Addresses(luigi, mlflow, _runs(mlflow)))

        with lock:
            if not (folder / DATABASE).exists():
                from basilar.pipeline.tracking.runs import create_database  # imports MLflow

                create_database(tracker, folder / DATABASE)
            run(servers, ready=ready)


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", f"{_WITH_PARENT}; {code}"]


def _runs(mlflow: str) -> str:
    """MLflow's page of the runs of builds, which is not the page that it opens with."""
    question = f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=basilar"
    try:
        with urllib.request.urlopen(question, timeout=_PATIENCE) as answer:
            number = json.load(answer)["experiment"]["experiment_id"]
    except OSError:  # 404: nothing was logged yet
        return mlflow
    return f"{mlflow}/#/experiments/{number}/runs?workflowType=machine_learning"


def free_ports(**ports: int) -> list[int]:
    """The ports, or free ones where they are 0. Raises PortError, with the option of that name.

    >>> first, second = free_ports(luigi_port=0, mlflow_port=0)
    >>> 0 < first != second > 0
    True
    """
    found = []
    with contextlib.ExitStack() as stack:
        for name, port in ports.items():
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            option = f"--{name.replace('_', '-')}"
            try:
                probe.bind((HOST, port))
                probe.listen()
            except OSError as error:
                raise PortError(
                    f"{option} {port}: nothing can listen on {HOST}:{port} ({error.strerror}); end "
                    f"what does, or name another port ({option} 0: any free one)"
                ) from None
            found.append(probe.getsockname()[1])
    return found


def run(servers: Sequence[Server], *, ready: Callable[[], None]) -> None:
    """Run servers until this process is told to stop (SIGINT, SIGTERM, SIGHUP).

    `ready` is called when all answer. Raises ServerError if one ends before, or does not answer.
    When this returns or raises, all have ended, with all they started.
    """
    running: list[_Running] = []
    with _told_to_stop() as stop:
        try:
            for server in servers:
                # One by one: what has started is ended if the next cannot be.
                running.append(_Running(server))  # noqa: PERF401
            if _all_answer(running, stop):
                ready()
            while not stop.wait(_POLL):
                for child in running:
                    child.refuse_end()
        finally:
            for child in running:
                child.signal(signal.SIGTERM)
            deadline = time.monotonic() + _GRACE
            for child in running:
                child.end(deadline)


def _all_answer(running: "list[_Running]", stop: threading.Event) -> bool:
    """Wait until all answer, or this process is told to stop; return whether all answer."""
    deadline = time.monotonic() + _PATIENCE
    waiting = list(running)
    while waiting and not stop.wait(_POLL):
        for child in running:
            child.refuse_end()
        waiting = [child for child in waiting if not child.answers()]
        if waiting and time.monotonic() > deadline:
            raise waiting[0].error(f"does not answer after {_PATIENCE:.0f} s")
    return not waiting


class _Running:
    """A server's process, its group, and what it printed last."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process = subprocess.Popen(
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**_ENVIRONMENT, **os.environ},
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._said: deque[str] = deque(maxlen=_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Read all it prints, lest the pipe fill up, and keep the last lines."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self._said.extend(lines)

    def answers(self) -> bool:
        """Whether its page is there."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(self._server.ready, timeout=1).close()
            return True
        return False

    def refuse_end(self) -> None:
        """Raise ServerError if it has ended."""
        ended = self._ended()
        if ended is not None:
            how = "with status" if ended.si_code == os.CLD_EXITED else "by signal"
            self._reader.join(1)
            raise self.error(f"ended {how} {ended.si_status}")

    def error(self, what: str) -> ServerError:
        """An error that says what it printed last."""
        said = "".join(f"\n  {line.rstrip()}" for line in self._said)
        return ServerError(f"{self._server.name}: it {what}; it printed last:{said or ' nothing'}")

    def signal(self, number: int) -> None:
        """Send a signal to its group, which is there until it is waited for."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self, deadline: float) -> None:
        """Wait until it has ended, or a deadline; then kill what is left of its group."""
        while self._ended() is None and time.monotonic() < deadline:
            time.sleep(_POLL / 2)
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join(1)

    def _ended(self) -> os.waitid_result | None:
        """How it ended, if it did. It stays a zombie, so that its group's id is not used again."""
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, how)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that a signal to stop sets; the signal then interrupts nothing."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
