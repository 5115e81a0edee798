import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.pipeline import audio
from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from basilar.pipeline.plan import MAX_SHARDS, Plan, outstanding, shard_borders
from basilar.pipeline.recipes.recipe import Recipe

RECIPE = Recipe.from_dict({"representation": {"kind": "log_mel"}})


def manifest(clips, tmp_path="root"):
    """A manifest of (id, content number, seconds, label, split)."""
    rows = [
        {
            **dict.fromkeys(CLIP_COLUMNS.names),
            **{"id": clip_id, "path": f"{clip_id}.wav", "label": label, "split": split},
            "sha256": hashlib.sha256(str(content).encode()).hexdigest(),
            **{"sample_rate": 1000, "n_samples": int(seconds * 1000), "channels": 1},
            **{"lossy": False, "decoder": "soundfile"},
        }
        for clip_id, content, seconds, label, split in sorted(clips)
    ]
    return Manifest(Path(tmp_path), pa.Table.from_pylist(rows, CLIP_COLUMNS))


def clips(contents, seconds=1.0):
    return [(f"clip{c}", c, seconds, None, "train") for c in contents]


def keys_of(plan):
    return {shard.keys["decode"]: shard for shard in plan.shards}


def contents_of(plan):
    return [source.content for shard in plan.shards for source in shard.sources]


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=200), st.floats(0.5, 50))
def test_every_content_is_in_one_shard_in_order(contents, shard_seconds):
    plan = Plan(RECIPE, manifest(clips(contents)), shard_seconds)
    assert contents_of(plan) == sorted(plan.manifest.contents)
    assert all(shard.sources for shard in plan.shards)
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))


@given(
    st.sets(st.integers(0, 10**6), min_size=2, max_size=150),
    st.integers(10**6 + 1, 2 * 10**6),
    st.floats(1, 30),
)
def test_one_clip_touches_at_most_two_shards(contents, new, shard_seconds):
    """An added clip may split the shard it falls into; a removed one may join two."""
    before = keys_of(Plan(RECIPE, manifest(clips(contents)), shard_seconds))
    more = keys_of(Plan(RECIPE, manifest(clips(contents | {new})), shard_seconds))
    assert len(more.keys() - before.keys()) <= 2
    assert len(before.keys() - more.keys()) <= 1


def test_renaming_relabelling_and_resplitting_touch_no_shard():
    before = Plan(RECIPE, manifest(clips(range(50))), 10)
    splits = ("train", "test")
    renamed = [(f"other{c}", c, 1.0, "label", splits[c % 2]) for c in range(50)]
    after = Plan(RECIPE, manifest(renamed), 10)
    assert keys_of(before).keys() == keys_of(after).keys()
    assert before.key != after.key


def test_equal_contents_are_computed_once():
    twice = [("a", 1, 1.0, None, None), ("b", 1, 1.0, None, None), ("c", 2, 1.0, None, None)]
    plan = Plan(RECIPE, manifest(twice))
    assert len(contents_of(plan)) == 2
    assert [plan.manifest.column("id")[row] for row in plan.manifest.order] in (
        ["a", "b", "c"],
        ["c", "a", "b"],
    )


def test_shards_hold_their_seconds_on_average_whatever_the_lengths():
    many = [(f"c{i}", i, 0.5 if i % 3 else 20.0, None, None) for i in range(6000)]
    plan = Plan(RECIPE, manifest(many), 400)
    total = sum(plan.manifest.seconds)
    # 105 shards are expected; their number varies by its root, 10: four of those are allowed.
    assert abs(len(plan.shards) - total / 400) < 40


@given(st.integers(0, 2**32), st.integers(500, 900))
@settings(max_examples=10)
def test_there_are_never_more_shards_than_luigi_can_bear_and_doubling_keeps_borders(seed, count):
    contents = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)
    lengths = np.ones(count)
    few = shard_borders(contents, lengths, shard_seconds=1.0)
    assert len(few) <= MAX_SHARDS
    assert few[-1] == count
    wide = shard_borders(contents, lengths, shard_seconds=64.0)
    wider = shard_borders(contents, lengths, shard_seconds=128.0)
    assert set(wider.tolist()) <= set(wide.tolist())


def test_clips_of_unknown_length_make_no_border_and_are_not_lost():
    unknown = [(f"c{i}", i, 0.0, None, None) for i in range(20)]
    plan = Plan(RECIPE, manifest(unknown), 0.001)
    assert [len(shard.sources) for shard in plan.shards] == [20]


def test_keys_name_the_stage_and_its_recipe():
    plan = Plan(RECIPE, manifest(clips(range(5))))
    other = Plan(
        Recipe.from_dict({"representation": {"kind": "log_mel", "n_mels": 40}}), plan.manifest
    )
    (shard,), (changed,) = plan.shards, other.shards
    assert len(set(shard.keys.values())) == 3
    assert shard.keys["decode"] == changed.keys["decode"]
    assert shard.keys["resample"] == changed.keys["resample"]
    assert shard.keys["representation"] != changed.keys["representation"]


def test_lossy_clips_are_keyed_with_their_decoder(monkeypatch):
    lossless = manifest(clips(range(5)))
    lossy_table = lossless.table.set_column(
        CLIP_COLUMNS.get_field_index("lossy"), CLIP_COLUMNS.field("lossy"), pa.array([True] * 5)
    )
    lossy = Manifest(lossless.root, lossy_table)

    def keys_with(version, of):
        monkeypatch.setattr(
            "basilar.pipeline.audio.identity", lambda decoder: f"{decoder} {version}"
        )
        plan = Plan(RECIPE, of)
        return plan.key, plan.fit_key, plan.shards[0].keys["decode"]

    assert keys_with(1, lossless) == keys_with(2, lossless)
    assert not set(keys_with(1, lossy)) & set(keys_with(2, lossy))


def test_the_layout_is_no_part_of_a_key():
    plan = Plan(RECIPE, manifest(clips(range(5))))
    compact = Recipe.from_dict(
        {"representation": {"kind": "log_mel"}, "store": {"codec": "compact"}}
    )
    other = Plan(compact, plan.manifest)
    assert (plan.key, plan.fit_key, plan.shards) == (other.key, other.fit_key, other.shards)
    assert plan.layout_hash != other.layout_hash


def test_normalization_is_fitted_on_its_split():
    two = [("a", 1, 1.0, None, None), ("b", 2, 1.0, None, "test"), ("c", 3, 1.0, None, "train")]
    plan = Plan(RECIPE, manifest(two))
    ids = plan.manifest.column("id")
    assert sorted(np.array(ids)[plan.is_fitted]) == ["a", "c"]  # without a split is train
    everything = Recipe.from_dict(
        {"representation": {"kind": "log_mel"}, "normalization": {"split": "all"}}
    )
    assert Plan(everything, plan.manifest).is_fitted.all()
    nobody = manifest([("a", 1, 1.0, None, "dev"), ("b", 2, 1.0, None, "test")])
    with pytest.raises(
        ManifestError, match=r'"train" holds no clip, the manifest has dev, test; na'
    ):
        Plan(RECIPE, nobody)


def test_clips_that_could_not_be_read_are_keyed_with_both_decoders(monkeypatch):
    """Another version may read them: what is quarantined must not stay so for ever."""
    readable = manifest(clips(range(3)))
    rows = readable.table.to_pylist()
    rows[0]["problem"] = "damaged"
    unreadable = Manifest(readable.root, pa.Table.from_pylist(rows, CLIP_COLUMNS))
    found = set()
    for version in (1, 2):
        monkeypatch.setattr(
            "basilar.pipeline.audio.identity", lambda decoder, v=version: f"{decoder} {v}"
        )
        found.add(Plan(RECIPE, unreadable).shards[0].keys["decode"])
    assert len(found) == 2


def test_a_decoder_that_deviates_moves_no_key_of_a_lossless_file():
    """Also where its codec has no canary of its own, such as FLAC of 12 bits by FFmpeg."""
    rows = manifest(clips(range(1))).table.to_pylist()
    found = []
    for lossy in (False, True):
        rows[0] |= {"codec": "flac", "decoder": "ffmpeg", "lossy": lossy}
        only = Manifest(Path("/a"), pa.Table.from_pylist(rows, CLIP_COLUMNS))
        plans = [Plan(RECIPE, only, 600.0, what) for what in ({}, {"decode ffmpeg": "bits 1"})]
        found.append(plans[0].key == plans[1].key)
    assert found == [True, False]


@pytest.mark.parametrize(("path", "lossy"), [("soundfile mp3", True), ("soundfile pcm", False)])
def test_a_new_version_of_a_decoder_is_in_the_keys_of_its_files_alone(monkeypatch, path, lossy):
    """Of three files, one is decoded by this path."""
    rows = manifest(clips(range(3))).table.to_pylist()
    for row, codec in zip(rows, ("flac", "vorbis", "mp3" if lossy else "pcm_s16"), strict=True):
        row |= {"codec": codec, "decoder": "soundfile", "lossy": codec in ("vorbis", "mp3")}

    def keys():
        made = []
        for row in rows:
            only = Manifest(Path("/a"), pa.Table.from_pylist([row], CLIP_COLUMNS))
            plan = Plan(RECIPE, only)
            made.append((plan.key, plan.shards[0].keys["decode"]))
        return made

    before = keys()
    monkeypatch.setitem(audio.VERSIONS, path, 2)
    after = keys()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]


@pytest.mark.parametrize(
    ("there", "pending"),
    [
        (set(), ["decode", "resample", "representation"]),
        ({"decode"}, ["resample", "representation"]),
        ({"resample"}, ["representation"]),
        ({"representation"}, []),
    ],
)
def test_a_stage_is_computed_only_if_one_below_asks_for_it(there, pending):
    plan = Plan(RECIPE, manifest(clips(range(5))))
    work = outstanding(plan, published=False, exists=lambda stage, shard: stage in there)
    assert [stage for stage, shards in work.pending.items() if shards] == pending


def test_nothing_is_outstanding_once_published():
    plan = Plan(RECIPE, manifest(clips(range(5))))
    work = outstanding(plan, published=True, exists=lambda stage, shard: False)
    assert not any(work.pending.values())
