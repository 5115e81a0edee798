"""Real schedulers and workers on loopback, in processes of their own, for tests of engines."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.conftest import REPOSITORY

PYTHON = Path(sys.executable)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """Processes in sessions of their own, which end with the block."""

    def __enter__(self):
        self.all = []
        return self

    def __exit__(self, *_):
        for process in self.all:
            kill(process)

    def start(self, *command, folder, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "said").open("ab") as said:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.all.append(process)
        return process


def kill(process):
    """Kill a process and all it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition, seconds=120):
    """Wait until something holds: what it returned."""
    for _ in range(int(seconds * 20)):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it took too long")


def basilar(*arguments):
    """The command line of the command, whatever is installed."""
    return [PYTHON, "-c", "from pipeline.cli import main; main()", *arguments]


def luigid(processes, folder, address="127.0.0.1"):
    """A luigid that soon forgets dead workers; its URL."""
    folder.mkdir()
    (folder / "luigi.cfg").write_text(
        "[scheduler]\nworker_disconnect_delay = 5\nprune_on_get_work = true\n"
    )
    port = free_port()
    processes.start(
        *(PYTHON.with_name("luigid"), "--address", address, "--port", port),
        folder=folder,
        LUIGI_CONFIG_PATH=str(folder / "luigi.cfg"),
    )
    wait_for(lambda: answers(f"http://{address}:{port}/api/is_paused"))
    return f"http://{address}:{port}"


def answers(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as page:
        return page.status == 200


def dask(processes, folder, workers=2):
    """A Dask cluster of single-threaded workers: the scheduler's file, and the workers."""
    file = folder / "scheduler.json"
    processes.start(
        *(PYTHON.with_name("dask"), "scheduler", "--host", "127.0.0.1", "--port", "0"),
        *("--no-dashboard", "--scheduler-file", file),
        folder=folder,
    )
    wait_for(lambda: file.exists() and file.stat().st_size)
    return file, [dask_worker(processes, folder / str(i), file) for i in range(workers)]


def dask_worker(processes, folder, file):
    return processes.start(
        *(PYTHON.with_name("dask"), "worker", "--scheduler-file", file, "--nthreads", "1"),
        *("--no-nanny", "--no-dashboard", "--host", "127.0.0.1"),
        folder=folder,
    )
