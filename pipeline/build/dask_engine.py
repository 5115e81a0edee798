"""Shards computed on a Dask cluster that is there already: one function call a shard.

Its workers need this package, and root and audio under the same paths as here. A call decodes,
resamples and represents one shard and writes what is kept, by the tasks that Luigi would run: keys
and digest are the same. The shard of a lost worker is given to another one, and what the worker had
committed stays. A shard that loses four workers is given up (Dask's
`distributed.scheduler.allowed-failures`).
"""

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from basilar.pipeline.build.build import build_of
from basilar.pipeline.build.shard_tasks import Decode, Represent, Resample
from basilar.pipeline.errors import ClusterError
from basilar.pipeline.plan import Shard
from basilar.pipeline.process import configure
from basilar.pipeline.storage import locks

_TIMEOUT = 30  # seconds until a scheduler that does not answer is given up

_one = threading.Lock()  # locks belong to processes: threads take turns


def map_shards(
    build: str,
    shards: Sequence[Shard],
    *,
    address: str,
    tell: Callable[[int], None] = lambda done: None,
) -> None:
    """Compute shards of a build (as text) on the cluster at an address, or of a scheduler file.

    `tell` is called with the number of shards done. Raises ClusterError without a cluster. If
    shards fail, the first error is raised when all others are done, and their errors are logged.
    """
    attempt = uuid.uuid4().hex[:8]
    failed: list[BaseException] = []
    with _connected(address) as client:
        from distributed import as_completed

        calls = [
            client.submit(
                compute,
                build,
                shard.index,
                # Readable on the dashboard, and of this attempt: an earlier one may have failed.
                key=f"shard-{shard.index:03}-{shard.keys['representation'][:12]}-{attempt}",
                pure=False,
            )
            for shard in shards
        ]
        for done, call in enumerate(as_completed(calls, loop=client.loop), start=1):
            error = call.exception()
            if error is not None:
                failed.append(error)
            tell(done)
    for error in failed[1:]:  # Luigi logs the first
        logging.getLogger("luigi-interface").error("a shard failed", exc_info=error)
    if failed:
        raise failed[0]


def compute(build: str, index: int) -> None:
    """Compute one shard of a build: what a worker of the cluster calls."""
    configure()
    with _one:
        the_build = build_of(build)
        shard = the_build.plan.shards[index]
        with locks.session(the_build.root):
            for task in (Decode, Resample, Represent):
                if task.stage in (*the_build.keep, Represent.stage):
                    task.of(build, shard).run()


def _connected(address: str) -> Any:
    """A client of the cluster, opened where it is used, because a forked client hangs."""
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError(
            f"{address}: Dask is not installed; install it with pip install 'basilar[dask]'"
        ) from None
    named = "://" in address
    if not named and not Path(address).is_file():
        raise ClusterError(
            f"{address}: no such scheduler file; name one, or an address like tcp://host:port"
        )
    try:
        where = {"address": address} if named else {"scheduler_file": address}
        return Client(**where, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{address}: no Dask scheduler answers there ({error}); start one, or name another"
        ) from None
