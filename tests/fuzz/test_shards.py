"""Plans over random manifests: who is in which shard, and how little a change moves."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from basilar.pipeline.plan import MAX_SHARDS, Plan, shard_borders
from basilar.pipeline.recipes.recipe import Recipe
from tests.fuzz import examples

RECIPE = Recipe.from_dict(
    {"representation": {"kind": "log_mel"}, "normalization": {"split": "all"}}
)


@st.composite
def data_sets(draw):
    """Clips by id: (content number, n_samples, offset, duration); few numbers, so many equal."""
    count = draw(st.one_of(st.integers(1, 30), st.integers(1, 30), st.integers(300, 2000)))
    chance = draw(st.randoms(use_true_random=False))
    numbers = draw(st.sampled_from([10, 10**6]))
    excerpts = draw(st.booleans())
    clips = {}
    for i in range(count):
        offset = chance.choice([None, 0.0, 0.25, 1.5]) if excerpts else None
        duration = chance.choice([None, 0.5, 1e-3]) if excerpts else None
        content = chance.randrange(numbers)
        clips[f"{i:04}"] = (content, content % 7 * 500, offset, duration)
    return clips


def plan_of(clips, shard_seconds, prefix=""):
    rows = [
        {
            **dict.fromkeys(CLIP_COLUMNS.names),
            "id": prefix + name,
            "path": f"{prefix}{name}.wav",
            "sha256": hashlib.sha256(str(content).encode()).hexdigest(),
            **{"sample_rate": 1000, "n_samples": n_samples, "channels": 1, "lossy": False},
            **{"decoder": "soundfile", "offset": offset, "duration": duration},
        }
        for name, (content, n_samples, offset, duration) in sorted(clips.items())
    ]
    manifest = Manifest(Path("root"), pa.Table.from_pylist(rows, CLIP_COLUMNS))
    return Plan(RECIPE, manifest, shard_seconds)


def keys_of(plan):
    return {stage: {shard.keys[stage] for shard in plan.shards} for stage in plan.shards[0].keys}


def doublings(plan):
    """How often the plan doubles `shard_seconds`."""
    contents = sorted(set(plan.manifest.contents))
    lengths = dict(zip(plan.manifest.contents, plan.manifest.seconds, strict=True))
    seconds = plan.shard_seconds
    for count in range(64):
        borders = [c for c in contents if int(c[16:32], 16) / 2**64 < lengths[c] / seconds]
        if len(borders) + (contents[-1] not in borders) <= MAX_SHARDS:
            return count
        seconds *= 2
    raise AssertionError("no end of doubling")


SECONDS = st.sampled_from([0.3, 1.0, 5.0, 60.0])


@examples(25)
@given(data_sets(), SECONDS)
def test_every_content_is_in_one_shard_in_order_and_keys_know_no_names(clips, shard_seconds):
    plan = plan_of(clips, shard_seconds)
    contents = [source.content for shard in plan.shards for source in shard.sources]
    assert contents == sorted(set(plan.manifest.contents))
    assert len(plan.shards) <= MAX_SHARDS
    renamed = plan_of(clips, shard_seconds, prefix="other/")
    backwards = dict(zip(clips, reversed(clips.values()), strict=True))  # other ids, same contents
    for other in (renamed, plan_of(backwards, shard_seconds)):
        assert keys_of(other) == keys_of(plan)
    assert renamed.key != plan.key


@examples(25)
@given(data_sets(), SECONDS, st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_a_change_moves_as_few_shards_as_promised(clips, shard_seconds, new, chance):
    """One more clip: at most one shard goes and two come, if it brings a border. One less: the
    other way round. One changed is one less and one more: at most three go and three come."""
    before = plan_of(clips, shard_seconds)
    changed = chance.choice(list(clips))
    more = {**clips, "new": (new, new % 7 * 500, None, None)}
    less = {name: clip for name, clip in clips.items() if name != changed}
    other = {**less, changed: (new, new % 7 * 500, None, None)}
    for clips_after, most_gone, most_come in ((more, 1, 2), (less, 2, 1), (other, 3, 3)):
        after = plan_of(clips_after, shard_seconds) if clips_after else before
        if doublings(after) == doublings(before):
            for stage, keys in keys_of(before).items():
                now = keys_of(after)[stage]
                assert len(keys - now) <= most_gone
                assert len(now - keys) <= most_come


@examples(60)
@given(st.integers(0, 2**32), st.integers(1, 3000), st.sampled_from([0.0, 1.0, 1e4]), SECONDS)
def test_doubled_borders_are_a_subset(seed, count, longest, shard_seconds):
    rng = np.random.default_rng(seed)
    words, lengths = rng.integers(0, 2**64, count, np.uint64), longest * rng.random(count)
    borders = shard_borders(words, lengths, shard_seconds=shard_seconds).tolist()
    assert borders == sorted(set(borders))
    assert borders[-1] == count
    assert len(borders) <= MAX_SHARDS
    doubled = shard_borders(words, lengths, shard_seconds=2 * shard_seconds).tolist()
    assert set(doubled) <= set(borders)
