import io
import time

import luigi
import pytest
from rich.console import Console

from basilar.pipeline.build import luigi_engine, registry, status
from basilar.pipeline.build.build import Build
from basilar.pipeline.build.set_tasks import FitNormalization, Publish
from basilar.pipeline.build.shard_tasks import Represent, Resample
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import locks
from tests.conftest import SMALL


@pytest.fixture
def build(audio_folder, tmp_path):
    """A build that has only begun, over 12 clips and a bad one."""
    (audio_folder / "broken.wav").write_bytes(b"RIFF broken")
    planned = Build(
        root=tmp_path / "root",
        plan=Plan(Recipe.from_dict(SMALL), scan(audio_folder), 1.5),
        tracking_uri="",
    )
    with locks.session(planned.root):
        planned.register()
        yield planned
        registry.end(planned.root)


def make(build, shard, *tasks):
    for task in tasks:
        task.of(build.register(), shard).run()


def test_how_far_a_build_is_is_what_is_there_of_it(build):
    ((begun, who),) = status.builds_in(build.root)
    shards = build.plan.shards
    assert begun.stages == dict.fromkeys(("decode", "resample", "representation"), (0, len(shards)))
    assert (begun.clips, begun.all_clips, begun.share, begun.seconds_left) == (0, 13, 0.0, None)
    assert len(who) == 1
    make(build, shards[0], Resample)  # what it decoded lies nowhere
    ((now, _),) = status.builds_in(build.root)
    assert now.stages["decode"] == now.stages["resample"] == (1, len(shards))
    assert now.stages["representation"] == (0, len(shards))
    for shard in shards:
        make(build, shard, Represent)
    ((now, _),) = status.builds_in(build.root)
    assert now.stages["representation"] == (len(shards), len(shards))
    assert (now.clips, now.quarantined, now.share) == (13, 1, 1.0)
    assert now.seconds_left == 0.0
    hours = sum(shard.seconds for shard in shards) / 3600
    assert now.clips_per_second == pytest.approx(13 / now.seconds)
    assert now.audio_hours_per_second == pytest.approx(hours / now.seconds)
    assert (begun.at, now.at) == ("computing shards", "fitting statistics")
    for task, then in ((FitNormalization, "publishing"), (Publish, "logging to MLflow")):
        task.of(build.register()).run()
        ((now, _),) = status.builds_in(build.root)
        assert now.line.endswith(f" so far, {then}")


def test_what_was_there_before_is_not_counted_as_fast(build):
    first, *others = build.plan.shards
    make(build, first, Resample, Represent)
    pending = {stage: [shard.index for shard in others] for stage in ("decode", "representation")}
    watch = status.Watch(build, pending, time.time() - 10)
    assert watch.look().clips == len(first.rows)
    assert watch.look().clips_per_second == watch.look().share == 0
    for shard in others:
        make(build, shard, Represent)
    rate = sum(len(shard.rows) for shard in others) / 10
    assert watch.look().clips_per_second == pytest.approx(rate, rel=0.3)


@pytest.mark.parametrize("screen", [False, True])
def test_a_build_shows_how_far_it_is(build, screen, monkeypatch, capsys):
    seen = io.StringIO()
    terminal = Console(file=seen, force_terminal=True, width=120)
    monkeypatch.setattr(status, "on_screen", lambda: screen)
    monkeypatch.setattr(status, "stderr", terminal)
    monkeypatch.setattr(status, "_REDRAW", 0.05)
    monkeypatch.setattr(status, "_LINE", 0.05)
    with status.show_progress(build):
        make(build, build.plan.shards[0], Resample, Represent)
        expected = f"{len(build.plan.shards[0].rows)} of 13 clips"
        said, deadline = "", time.monotonic() + 30
        while expected not in said and time.monotonic() < deadline:
            time.sleep(0.05)
            said = seen.getvalue() if screen else said + capsys.readouterr().err
    assert expected in said
    assert ("━" in said) == screen


def test_a_cached_build_shows_nothing(built, capsys, monkeypatch):
    monkeypatch.setattr(status, "_LINE", 0.01)
    assert luigi_engine.run(built, workers=1, log=False, show=True).succeeded
    assert capsys.readouterr().err == ""


def test_a_task_tells_luigi_how_far_it_is(build, monkeypatch):
    monkeypatch.setattr("basilar.pipeline.build.shard_tasks._TELL_EVERY", 0.0)
    scheduler = luigi.scheduler.Scheduler()
    worker = luigi.worker.Worker(scheduler=scheduler)
    told = []
    monkeypatch.setattr(
        scheduler, "set_task_status_message", lambda task_id, message: told.append(message)
    )
    sizes = []
    for shard in build.plan.shards:
        task = Resample.of(build.register(), shard)
        sizes.append(len(shard.sources))
        worker.add(task)
    assert worker.run()
    for size in sizes:
        assert any(message.startswith(f"{size} of {size} clips, ") for message in told)
    assert any(message.endswith("1 quarantined") for message in told)
