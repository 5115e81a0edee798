"""The processes that do the work of a build: Luigi workers here, or elsewhere by a luigid, or Dask.

With a luigid, every process that takes part schedules the same tasks and asks for work until the
build is done. luigid gives each task to one of them, and that of a worker that died to another one,
when it has not heard of the worker for `worker_disconnect_delay`. A task that fails ends its
worker.
"""

import contextlib
import fcntl
import json
import logging
import multiprocessing
import os
import shutil
import socket
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import luigi
from luigi.worker import TaskProcess

from basilar.pipeline import storage
from basilar.pipeline.build import registry, status
from basilar.pipeline.build.build import Build, build_of, logged_run
from basilar.pipeline.build.interrupts import interruptible
from basilar.pipeline.build.set_tasks import LogRun, Publish
from basilar.pipeline.build.shard_tasks import new_attempt
from basilar.pipeline.console import print_error
from basilar.pipeline.errors import LostWorkerError, SchedulerError
from basilar.pipeline.plan import Work, disk_bytes
from basilar.pipeline.process import configure
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.storage import locks
from basilar.pipeline.text import Lines, explain_error, in_lines

_GOOD = (luigi.LuigiStatusCode.SUCCESS, luigi.LuigiStatusCode.SUCCESS_WITH_RETRY)
_BAD = (
    luigi.LuigiStatusCode.FAILED,
    luigi.LuigiStatusCode.FAILED_AND_SCHEDULING_FAILED,
    luigi.LuigiStatusCode.SCHEDULING_FAILED,
)
_UNPLANNED = _BAD[1:]
_ASK_AGAIN = 2.0  # seconds
_TIMEOUT = 10.0  # seconds until a luigid that does not answer is given up
_SHOWN = 10  # failures
_LOGGER = logging.getLogger("luigi-interface")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a build: `computed` and `cached` count shards by stage.

    `published` says that the set was not there before. `failures` are the messages of tasks that
    failed here, each once.
    """

    succeeded: bool
    published: bool
    failures: list[str]
    computed: dict[str, int]
    cached: dict[str, int]
    seconds: float
    mlflow_run_id: str | None

    @property
    def shards_computed(self) -> int:
        """Shards of which at least one stage was computed."""
        return max(self.computed.values())

    @property
    def verb(self) -> str:
        """What was done, in a word."""
        return "built" if self.shards_computed else "published" if self.published else "cached"

    @property
    def reasons(self) -> str:
        """The failures as indented lines, to follow the message of the failed build."""
        lines = [line for failure in self.failures for line in failure.split("\n")]
        return "".join(f"\n  {line}" for line in lines)


class Ran(NamedTuple):
    """The outcome of a task and all it requires, and the messages of failures, each once."""

    succeeded: bool
    failures: list[str]


def run(
    build: Build,
    *,
    workers: int,
    log: bool = True,
    scheduler: str = "",
    show: bool = False,
    tell: bool = True,
) -> Outcome:
    """Carry out a build, by the luigid at a URL or alone; a cached one only looks for its output.

    Without `log` it ends with the published feature set and is no run in MLflow. `show` shows how
    far it is on standard error. Without `tell` failures are in the outcome alone, and nothing of
    them is printed. Raises SchedulerError.
    """
    configure()
    started = time.perf_counter()
    new_attempt()
    last = LogRun if log else Publish
    with locks.session(build.root):
        try:
            text = build.register(scheduler=scheduler)
            before = build.work()
            with interruptible(), status.show_progress(build) if show else contextlib.nullcontext():
                ran = run_luigi(last.of(text), workers=workers, scheduler=scheduler, tell=tell)
        finally:
            registry.end(build.root)
    work = build.work()
    left = work.pending
    failures = ran.failures
    if not ran.succeeded and (short := _lack_of_space(build, work)):
        if tell:
            print_error(in_lines(short))
        else:
            failures = [*failures, short]
    computed = {stage: len(before.pending[stage]) - len(left[stage]) for stage in STAGES}
    return Outcome(
        succeeded=ran.succeeded and storage.exists(build.store),
        published=work.published and not before.published,
        failures=failures,
        computed=computed,
        cached={stage: len(build.plan.shards) - computed[stage] for stage in STAGES},
        seconds=time.perf_counter() - started,
        mlflow_run_id=logged_run(build) if log else None,
    )


def assist(
    root: Path, *, scheduler: str, workers: int, key: str = "", idle: float = 0.0
) -> dict[str, Ran]:
    """Take part in the builds of a root that run by a luigid and whose keys begin with `key`.

    Ends when there was none for `idle` seconds, and returns by key the outcome of what was done
    here. The process that began a build logs it to MLflow. Raises SchedulerError.
    """
    _refuse_silence(scheduler)
    done: dict[str, Ran] = {}
    since = time.monotonic()
    while True:
        for record in registry.records(root):
            text, name = record["build"], record["key"]
            if not (record["scheduler"] and name.startswith(key)):
                continue
            if name in done and not done[name].succeeded:
                continue
            if storage.exists(build_of(text).store):
                continue
            with locks.session(root):
                try:
                    mine = build_of(text).register(scheduler=scheduler)
                    done[name] = run_luigi(Publish.of(mine), workers=workers, scheduler=scheduler)
                finally:
                    registry.end(root)
            since = time.monotonic()
        if time.monotonic() - since >= idle:
            return done
        time.sleep(_ASK_AGAIN)


def run_luigi(task: luigi.Task, *, workers: int, scheduler: str = "", tell: bool = True) -> Ran:
    """Run a task and all it requires, by the luigid at a URL or alone.

    Failures are reported on standard error, the first ten, unless `tell` is False; Luigi's own log
    is silent.
    """
    configure()
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(_tell_of_death)
    if scheduler:
        _refuse_silence(scheduler)
    with _failures_reported(tell=tell) as failures:
        while True:
            code = _run_once(task, workers=workers, scheduler=scheduler)
            if code in _UNPLANNED:
                _tell_why_unplanned(task)
            said = failures.said()
            if tell and (more := len(said[_SHOWN:])):
                print_error(in_lines(f"{more} more tasks failed; run it again to see what is left"))
            done = code in _GOOD if not scheduler else task.complete()
            if done or not scheduler or code in _BAD:
                return Ran(done, said)
            time.sleep(_ASK_AGAIN)  # others are at what is left, or were when they died


def _run_once(task: luigi.Task, *, workers: int, scheduler: str) -> luigi.LuigiStatusCode:
    """Run all that a task needs and that can run now, until none of its processes is left."""
    # For luigid's page. Containers may share a host's name, and have the same process ids.
    name = f"{socket.gethostname()}:{os.getpid()}-{uuid.uuid4().hex[:4]}"
    luigi.configuration.get_config().set("worker", "id", name)
    where: dict[str, Any] = {"scheduler_url": scheduler} if scheduler else {"local_scheduler": True}
    summary = luigi.build([task], workers=workers, detailed_summary=True, **where)
    code: luigi.LuigiStatusCode = summary.status
    # A task's process has said how it ended, and holds its locks until it is gone.
    for child in multiprocessing.active_children():
        if isinstance(child, TaskProcess):
            child.join()
    return code


@contextlib.contextmanager
def _failures_reported(*, tell: bool = True) -> Iterator["_Failures"]:
    """Have Luigi's loggers report failures, and nothing else, during the block."""
    luigi.configuration.get_config().set("core", "no_configure_logging", "true")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    loggers = [logging.getLogger(name) for name in ("luigi", "luigi-interface")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    with contextlib.closing(_Failures(_SHOWN if tell else 0)) as failures:
        handler.addFilter(failures)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.ERROR)
        try:
            yield failures
        finally:
            for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)


def _tell_why_unplanned(task: luigi.Task) -> None:
    """Log what keeps a task or one that it needs from being planned: Luigi does not say so."""
    seen, pending = {task.task_id}, [task]
    try:
        while pending:
            needed = pending.pop()
            new = [] if needed.complete() else [t for t in needed.deps() if t.task_id not in seen]
            seen |= {each.task_id for each in new}
            pending += new
    except Exception:
        _LOGGER.exception("%s cannot be planned", needed)


def _refuse_silence(scheduler: str) -> None:
    """Raise SchedulerError if no luigid answers at a URL."""
    try:
        urllib.request.urlopen(f"{scheduler.rstrip('/')}/api/is_paused", timeout=_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise SchedulerError(
            f"{scheduler}: no luigid answers there ({error}); start luigid, or name another"
        ) from None


def _lack_of_space(build: Build, work: Work) -> str:
    """A message if the rest of a build does not fit on the disk, else an empty text."""
    if storage.is_remote(build.root):
        return ""
    needed = sum(disk_bytes(build.plan, work, build.keep).values())
    free = shutil.disk_usage(build.root).free
    if free >= needed:
        return ""
    return (
        f"{build.root}: {free / 1e6:.1f} MB are free, and the rest of the build needs about "
        f"{needed / 1e6:.1f} MB; free some space and run it again, which continues where it stopped"
    )


def _tell_of_death(task: luigi.Task, message: str) -> None:
    """Log that the process of a task died: Luigi does so only where nobody sees it."""
    code = message.rpartition(" ")[2]
    lost = LostWorkerError(
        f"{getattr(task, 'about', task.task_family)}: its process died (exit code {code}; -9 is "
        "often the end of memory); run it again with fewer workers: it continues where it stopped"
    )
    _LOGGER.error(lost, exc_info=lost)


class _Failures(logging.Filter):
    """Lets each message through once, and at most `shown` in all, from whichever worker.

    A full disk or missing audio fails many tasks in the same way. The messages are in a file, a
    line each, that all workers share, since they are forks. It is in memory: a disk may be full.
    """

    def __init__(self, shown: int = _SHOWN) -> None:
        super().__init__()
        self._shown = shown
        self._file = os.memfd_create("basilar-failures")

    def close(self) -> None:
        """Forget the messages."""
        os.close(self._file)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() if error is None else explain_error(error)
        line = json.dumps(text).encode() + b"\n"
        fcntl.lockf(self._file, fcntl.LOCK_EX)  # a worker that is killed leaves no lock
        try:
            said = self.said()
            if text in said:
                return False
            os.pwrite(self._file, line, os.fstat(self._file).st_size)
            return len(said) < self._shown
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def said(self) -> list[str]:
        """The messages so far, as `WHERE: WHAT; WHAT TO DO`."""
        lines = os.pread(self._file, os.fstat(self._file).st_size, 0).splitlines()
        return [json.loads(line) for line in lines]
