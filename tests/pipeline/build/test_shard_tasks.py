from dataclasses import replace

import pytest

from basilar.pipeline.build import shard_tasks
from basilar.pipeline.build.shard_tasks import Decode, Represent, Resample
from basilar.pipeline.compute import stages
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.storage import atomic
from basilar.pipeline.store.reader import RowReader
from tests.pipeline.build.test_build import planned_in


@pytest.fixture
def planned(audio_folder, tmp_path):
    return planned_in(tmp_path, audio_folder)


@pytest.mark.parametrize("loss", ["missing", "empty", "flipped"])
@pytest.mark.parametrize("stage", ["decode", "resample"])
def test_what_a_task_reads_is_made_again_if_it_is_lost(planned, loss, stage):
    text = replace(planned, keep=STAGES).register()
    shard = planned.plan.shards[0]
    decode, resample, represent = (t.of(text, shard) for t in (Decode, Resample, Represent))
    decode.run()
    resample.run()
    represent.run()
    expected = first_rows(represent.path())
    lost, after = {"decode": (decode, resample), "resample": (resample, represent)}[stage]
    for task in (resample, represent)[STAGES.index(stage) :]:
        atomic.remove(task.path())
    samples = lost.path() / "samples.f32"
    if loss == "missing":
        atomic.remove(lost.path())
    elif loss == "empty":
        samples.write_bytes(b"")
    else:
        samples.write_bytes(b"x" + samples.read_bytes()[1:])
    after.run()
    represent.run()
    assert first_rows(represent.path()) == expected


def first_rows(folder):
    return RowReader(folder / "features").read(0, 10).tobytes()


def test_what_is_there_though_it_is_not_kept_is_read(planned, monkeypatch):
    """A build that kept more than this one does: nothing is decoded again."""
    shard = planned.plan.shards[0]
    Decode.of(replace(planned, keep=STAGES).register(), shard).run()
    monkeypatch.delattr(stages, "decode")
    represent = Represent.of(planned.register(), shard)
    assert represent.requires() == []
    represent.run()
    assert represent.path().exists()


def test_long_shards_come_first(planned):
    text = planned.register()
    shards = sorted(planned.plan.shards, key=lambda shard: shard.seconds)
    first, last = Represent.of(text, shards[-1]), Represent.of(text, shards[0])
    assert shards[-1].seconds >= 2 * shards[0].seconds
    assert first.priority > last.priority
    assert first.priority == Resample.of(text, shards[-1]).priority


def test_builds_take_shards_of_a_length_in_orders_of_their_own(planned):
    text, shards = planned.register(), planned.plan.shards
    orders = set()
    for _ in range(20):
        shard_tasks.new_attempt()
        found = {Represent.of(text, shard).priority: shard.index for shard in shards}
        orders.add(tuple(found[priority] for priority in sorted(found)))
    assert len(orders) > 1
