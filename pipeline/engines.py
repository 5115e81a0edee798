"""Where the work of a build runs: Luigi workers on this machine."""

import logging
import sys
import time
from dataclasses import dataclass

import luigi

from pipeline import locks
from pipeline.keys import STAGES
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
    left = build.work().pending
    computed = {stage: len(pending[stage]) - len(left[stage]) for stage in STAGES}
    return Outcome(
        succeeded=succeeded and build.store.exists(),
        computed=computed,
        cached={stage: len(build.plan.shards) - computed[stage] for stage in STAGES},
        seconds=time.perf_counter() - started,
        mlflow_run_id=logged_run(build) if log else None,
    )


def run_luigi(task: luigi.Task, *, workers: int) -> bool:
    """Run a task and all it requires on this machine; whether everything succeeded.

    Failures are reported on standard error, a line each; Luigi's own log is silent.
    """
    luigi.configuration.get_config().set("core", "no_configure_logging", "true")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Brief())
    for name in ("luigi", "luigi-interface"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    summary = luigi.build([task], workers=workers, local_scheduler=True, detailed_summary=True)
    return summary.status in _GOOD


class _Brief(logging.Formatter):
    """A failed task's exception in one line, or as many as its message has."""

    def format(self, record: logging.LogRecord) -> str:
        """The exception's own words."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return record.getMessage()
        return f"error: {type(error).__name__}: {error}"
