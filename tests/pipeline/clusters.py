"""Real schedulers, workers and object stores on loopback, for tests."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

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


class Server:
    """An S3 server on loopback; what `meddle` returns for a request is answered in its place."""

    def __init__(self):
        from moto.moto_api._internal import moto_api_backend
        from moto.server import DomainDispatcherApplication, create_backend_app

        moto_api_backend.reset()  # what a server before this one held
        self.app = DomainDispatcherApplication(create_backend_app)
        self.requests = []
        self.meddle = lambda method, path: None
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        status = self.meddle(method, path)
        if status is None:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Type", "application/xml")])
        return [b"<Error><Code>" + status.partition(" ")[2].encode() + b"</Code></Error>"]


class Quiet(WSGIRequestHandler):
    def log(self, *_, **__):
        pass


def wait_for(condition, seconds=300):
    """Wait until something holds: what it returned."""
    for _ in range(int(seconds * 20)):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it took too long")


def basilar(*arguments):
    """The command line of the command, whatever is installed."""
    return [PYTHON, "-c", "from basilar.pipeline.cli import main; main()", *arguments]


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


def done_by(url):
    """What a luigid knows to be done: the name of each task, and of the worker that ran it."""
    question = f"{url}/api/task_list?data=%7B%22status%22%3A%22DONE%22%7D"
    with urllib.request.urlopen(question) as page:
        tasks = json.load(page)["response"].values()
    return [(task["name"], task["worker_running"]) for task in tasks]


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
