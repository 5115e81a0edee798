"""The progress of builds, judged by the artifacts that exist, for this process and for others."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.live import Live
from rich.table import Table

from basilar.pipeline import storage
from basilar.pipeline.build import registry
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.console import on_screen, print_error, stderr
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.storage import files

_SHARDS = "computing shards"
_REDRAW = 1.0  # seconds
_LINE = 60.0  # seconds between lines where there is no screen
_SHARE = 20  # looking takes at most one part of so many of the time


@dataclass(frozen=True)
class BuildStatus:
    """The progress of a build.

    `stages` has the shards of each stage that are done, and all; `clips` are those represented or
    quarantined. Rates count what was done since the build began. `at` is the current stage.
    """

    key: str
    name: str
    seconds: float
    stages: dict[str, tuple[int, int]]
    clips: int
    all_clips: int
    quarantined: int
    clips_per_second: float
    audio_hours_per_second: float
    share: float
    seconds_left: float | None
    at: str

    @property
    def line(self) -> str:
        """The same in one line."""
        left = "" if self.seconds_left is None else f", {_clock(self.seconds_left)} left"
        if self.at != _SHARDS:
            left = f", {self.at}"
        return (
            f"{self.name} {self.key[:12]}: {self.share:.0%}, {self.clips} of {self.all_clips} "
            f"clips, {self.quarantined} quarantined, {self.clips_per_second:.1f} clips/s, "
            f"{self.audio_hours_per_second:.2g} h of audio/s, {_clock(self.seconds)} so far{left}"
        )


class Watch:
    """A build that began at `started` (seconds since 1970), when `pending` was missing by stage."""

    def __init__(self, build: Build, pending: dict[str, list[int]], started: float) -> None:
        self._build, self._pending, self._started = build, pending, started
        self._bad: dict[int, int] = {}

    def look(self) -> BuildStatus:
        """How far it is now."""
        plan = self._build.plan
        missing = {s: {x.index for x in left} for s, left in self._build.work().pending.items()}
        total = done = 0.0
        for stage, indices in self._pending.items():
            total += sum(plan.shards[i].seconds for i in indices)
            done += sum(plan.shards[i].seconds for i in indices if i not in missing[stage])
        made = [shard for shard in plan.shards if shard.index not in missing["representation"]]
        fresh = [shard for shard in made if shard.index in set(self._pending["representation"])]
        seconds = max(time.time() - self._started, 1e-3)
        return BuildStatus(
            key=plan.key,
            name=plan.recipe.name or plan.recipe.representation.kind,
            seconds=seconds,
            stages={
                stage: (len(plan.shards) - len(missing[stage]), len(plan.shards))
                for stage in STAGES
            },
            clips=sum(len(shard.rows) for shard in made),
            all_clips=len(plan.manifest),
            quarantined=sum(self._quarantined(shard.index) for shard in made),
            clips_per_second=sum(len(shard.rows) for shard in fresh) / seconds,
            audio_hours_per_second=sum(shard.seconds for shard in fresh) / 3600 / seconds,
            share=done / total if total else 1.0,
            seconds_left=seconds * (total - done) / done if done else None,
            at=self._at(missing["representation"]),
        )

    def _at(self, missing: set[int]) -> str:
        build = self._build
        if missing:
            return _SHARDS
        if storage.exists(build.store):
            return "logging to MLflow"
        if storage.exists(build.statistics):
            return "publishing"
        return "fitting statistics"

    def _quarantined(self, index: int) -> int:
        """The number of quarantined contents of a finished shard."""
        if index not in self._bad:
            folder = self._build.shard_folder(self._build.plan.shards[index])
            try:
                table = files.read_table(folder / "quarantine.parquet")
            except (FileNotFoundError, ValueError):  # gone after it was published, or damaged
                return 0
            self._bad[index] = table.num_rows
        return self._bad[index]


def builds_in(root: Path) -> list[tuple[BuildStatus, list[str]]]:
    """The builds that run in a root, the oldest first, each with its processes as HOST:ID."""
    records = registry.records(root)
    oldest = {record["build"]: record for record in reversed(records)}
    found = []
    for text, record in reversed(oldest.items()):
        who = [f"{r['host']}:{r['process']}" for r in records if r["build"] == text]
        watch = Watch(build_of(text), record["pending"], record["started"])
        found.append((watch.look(), who))
    return found


# Held while something is drawn, and by forks, so that no child inherits a console that is in use.
drawing = threading.Lock()
os.register_at_fork(
    before=drawing.acquire,
    after_in_parent=drawing.release,
    after_in_child=drawing.release,
)


@contextmanager
def show_progress(build: Build) -> Iterator[None]:
    """Show the progress of a build during the block: live on a terminal, else a line a minute."""
    work = build.work()
    if work.published:
        yield
        return
    pending = {s: [shard.index for shard in left] for s, left in work.pending.items()}
    watch = Watch(build, pending, time.time())
    over = threading.Event()
    live = Live(console=stderr, auto_refresh=False, transient=True) if on_screen() else None
    thread = threading.Thread(target=_show, args=(watch, live, over), daemon=True)
    with live or contextlib.nullcontext():
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _show(watch: Watch, live: Live | None, over: threading.Event) -> None:
    pause = _REDRAW if live else _LINE
    while not over.wait(pause):
        began = time.monotonic()
        with contextlib.suppress(OSError):  # what is removed meanwhile is looked for again
            status = watch.look()
            with drawing:
                if live is None:
                    print_error(status.line)
                else:
                    live.update(_rows(status), refresh=True)
        pause = max(pause, _SHARE * (time.monotonic() - began))


def _rows(status: BuildStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    for stage, (done, total) in status.stages.items():
        bar = "━" * round(30 * done / max(total, 1))
        table.add_row(stage, f"{bar:30}", f"{done} of {total} shards")
    grid = Table.grid()
    grid.add_row(table)
    grid.add_row(status.line)
    return grid


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock(3671.2)
    '1:01:11'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
