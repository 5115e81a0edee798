"""Where the work of a build runs: Luigi workers on this machine."""

import logging
import multiprocessing
import shutil
import sys
import time
import zlib
from dataclasses import dataclass

import luigi

from pipeline import locks, storage
from pipeline.console import Lines, print_error
from pipeline.keys import STAGES
from pipeline.shards import disk_bytes
from pipeline.tasks import Build, LogRun, Publish, logged_run, new_attempt

_GOOD = (luigi.LuigiStatusCode.SUCCESS, luigi.LuigiStatusCode.SUCCESS_WITH_RETRY)


@dataclass(frozen=True)
class Outcome:
    """What a build came to: `computed` and `cached` count shards by stage."""

    succeeded: bool
    computed: dict[str, int]
    cached: dict[str, int]
    seconds: float
    mlflow_run_id: str | None

    @property
    def shards_computed(self) -> int:
        """Shards of which at least one stage was computed."""
        return max(self.computed.values())


def run(build: Build, *, workers: int, log: bool = True) -> Outcome:
    """Carry out a build with Luigi's own scheduler; a cached one only looks for its last output.

    Without `log` it ends with the published feature set and is no run in MLflow.
    """
    started = time.perf_counter()
    new_attempt()
    pending = build.work().pending
    last = LogRun if log else Publish
    with locks.session(build.root):
        succeeded = run_luigi(last.of(build.register()), workers=workers)
    work = build.work()
    left = work.pending
    if not succeeded:
        _tell_of_space(build, sum(disk_bytes(build.plan, work, build.keep).values()))
    computed = {stage: len(pending[stage]) - len(left[stage]) for stage in STAGES}
    return Outcome(
        succeeded=succeeded and storage.exists(build.store),
        computed=computed,
        cached={stage: len(build.plan.shards) - computed[stage] for stage in STAGES},
        seconds=time.perf_counter() - started,
        mlflow_run_id=logged_run(build) if log else None,
    )


def run_luigi(task: luigi.Task, *, workers: int) -> bool:
    """Run a task and all it requires on this machine; whether everything succeeded.

    Failures are reported on standard error, the first ten; Luigi's own log is silent.
    """
    luigi.configuration.get_config().set("core", "no_configure_logging", "true")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    few = _Few()
    handler.addFilter(few)
    for name in ("luigi", "luigi-interface"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    summary = luigi.build([task], workers=workers, local_scheduler=True, detailed_summary=True)
    if few.more:
        print_error(f"error: {few.more} more tasks failed; run it again to see what is left")
    return summary.status in _GOOD


def _tell_of_space(build: Build, needed: int) -> None:
    """Say so if what is left of a build does not fit on the disk."""
    if storage.is_remote(build.root):
        return
    free = shutil.disk_usage(build.root).free
    if free < needed:
        print_error(
            f"error: {build.root}: {free / 1e6:.1f} MB are free; the rest of the build needs about "
            f"{needed / 1e6:.1f} MB. Free some space and run it again: it goes on where it stopped"
        )


class _Few(logging.Filter):
    """Lets each message through once, and ten in all, whichever of the workers has them.

    A full disk or missing audio fails many tasks in the same way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown = multiprocessing.Array("q", [-1] * 10)  # shared with workers: they are forks
        self._more = multiprocessing.Value("q", 0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() if error is None else str(error)
        mark = zlib.crc32(text.encode("utf-8", "replace"))
        with self._shown.get_lock():
            marks = self._shown[:]
            if mark in marks:
                return False
            if -1 not in marks:
                self._more.value += 1
                return False
            self._shown[marks.index(-1)] = mark
            return True

    @property
    def more(self) -> int:
        """How many messages were kept back that are not as one before."""
        return int(self._more.value)
