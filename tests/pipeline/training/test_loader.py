import hashlib
import json
import pickle
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from basilar import FeatureSet, Loader
from basilar.dsp.augment import spec_augment
from basilar.pipeline.recipes.recipe import Recipe
from tests.pipeline.store.test_publish import LOG_MEL, SMALL, publish


@pytest.fixture(scope="module")
def fs(tmp_path_factory):
    """Forty clips of 13 to 130 frames in about ten shard files, standardized, five labels."""
    import soundfile as sf

    folder = tmp_path_factory.mktemp("loader")
    rng = np.random.default_rng(0)
    for i in range(40):
        file = folder / "audio" / f"label {i % 5}" / f"{i:02}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        y = 0.1 * rng.standard_normal(800 + 192 * i)
        sf.write(file, y, 8000, subtype="PCM_16")
    recipe = Recipe.from_dict(
        {
            "resample": {"sample_rate": 8000},
            "representation": LOG_MEL,
            "normalization": {"kind": "standard"},
            "store": SMALL,
        }
    )
    path = publish(folder / "set", folder / "audio", recipe, shard_seconds=2.0)[1]
    fs = FeatureSet.open(path)
    assert len(np.unique(fs.files)) > 5
    return fs


def order(batches):
    return [int(clip) for batch in batches for clip in batch["clip"]]


def test_batches_hold_what_the_set_holds(fs):
    for batch in Loader(fs, batch_size=7, n_frames=32):
        assert batch["features"].dtype == np.float32
        for j, (clip, start, frames) in enumerate(
            zip(batch["clip"], batch["start"], batch["n_frames"], strict=True)
        ):
            expected = fs.normalize(fs[int(clip)][start : start + 32])
            assert frames == len(expected) == batch["mask"][j].sum() == min(32, fs.n_frames[clip])
            assert batch["features"][j, :frames].tobytes() == expected.tobytes()
            assert not batch["features"][j, frames:].any()
            assert fs.labels[batch["label"][j]] == fs.clips["label"][clip]


def test_whole_clips_are_padded_to_the_longest_of_the_batch(fs):
    for batch in Loader(fs, batch_size=8, normalize=False, pad_value=-1.0):
        longest = fs.n_frames[batch["clip"]].max()
        assert batch["features"].shape == (8, longest, 40)
        assert not batch["start"].any()
        for j, clip in enumerate(batch["clip"]):
            frames = fs.n_frames[clip]
            assert batch["features"][j, :frames].tobytes() == fs[int(clip)].tobytes()
            assert (batch["features"][j, frames:] == -1).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 50),
    crops_per_clip=st.integers(1, 3),
    shuffle=st.booleans(),
    window=st.none() | st.integers(1, 12),
    world_size=st.integers(1, 5),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**40),
)
def test_every_item_comes_once_an_epoch_over_all_ranks(
    fs, batch_size, crops_per_clip, shuffle, window, world_size, drop_last, seed
):
    assume(not drop_last or world_size * batch_size <= 40 * crops_per_clip)
    loaders = [
        Loader(
            fs,
            batch_size=batch_size,
            n_frames=4,
            crops_per_clip=crops_per_clip,
            shuffle=shuffle,
            window=window,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    batches = [list(loader) for loader in loaders]
    assert [len(given) for given in batches] == [len(loader) for loader in loaders]
    counts = Counter(clip for given in batches for clip in order(given))
    if drop_last:
        assert len({len(loader) for loader in loaders}) == 1
        assert all(len(b["clip"]) == batch_size for given in batches for b in given)
        left_out = 40 * crops_per_clip - counts.total()
        assert 0 <= left_out < batch_size * world_size
        assert max(counts.values(), default=0) <= crops_per_clip
    else:
        assert counts == dict.fromkeys(range(40), crops_per_clip)
    if not shuffle and not drop_last:
        assert [c for given in batches for c in order(given)] == sorted(counts.elements())


def test_orders_are_those_of_seed_and_epoch(fs):
    def epochs(seed):
        loader = Loader(fs, n_frames=8, seed=seed)
        return [(order(b := list(loader)), [int(s) for x in b for s in x["start"]]) for _ in "123"]

    assert epochs(1) == epochs(1)
    seen = [*epochs(1), *epochs(2)]
    assert len({tuple(o) for o, _ in seen}) == len({tuple(s) for _, s in seen}) == 6
    assert [0] * 40 not in [starts for _, starts in seen]


def test_the_order_of_a_seed_never_changes(fs):
    # It rests on raw generator output alone: resuming survives an upgrade of NumPy.
    batch = Loader(fs, batch_size=40, n_frames=4, seed=7)[3, 0]
    assert batch["clip"][:8].tolist() == [26, 13, 30, 18, 11, 22, 2, 32]


def test_crops_reach_every_start_evenly(fs):
    clip = int(np.argmax(fs.n_frames))
    loader = Loader(fs.select(id=fs.clips["id"][clip]), n_frames=fs.n_frames[clip] - 3)
    starts = Counter(int(loader[epoch, 0]["start"][0]) for epoch in range(400))
    assert set(starts) == {0, 1, 2, 3}
    assert min(starts.values()) > 60


def test_without_shuffling_crops_come_from_the_middle(fs):
    for batch in Loader(fs, n_frames=16, shuffle=False):
        room = np.maximum(fs.n_frames[batch["clip"]] - 16, 0)
        np.testing.assert_array_equal(batch["start"], room // 2)


def test_without_shuffling_several_crops_are_spread_over_the_clip(fs):
    (batch,) = Loader(fs, n_frames=16, crops_per_clip=4, shuffle=False, batch_size=160)
    starts = batch["start"].reshape(40, 4)
    room = np.maximum(fs.n_frames - 16, 0)
    np.testing.assert_array_equal(batch["clip"].reshape(40, 4)[:, 0], np.arange(40))
    np.testing.assert_array_equal(starts, room[:, None] * np.array([1, 3, 5, 7]) // 8)


def test_nothing_to_train_on_is_refused(fs):
    with pytest.raises(ValueError, match="no clip is selected"):
        Loader(fs.select(label="label 9"))
    with pytest.raises(ValueError, match=r"rank 0 of 1 has no batch: 40 items, batch_size = 41"):
        Loader(fs, batch_size=41, drop_last=True)


def test_a_batch_has_an_epoch(fs):
    with pytest.raises(TypeError, match=r"DataLoader\(loader, sampler=loader\.sampler\(\)"):
        Loader(fs)[0]


def test_the_epochs_of_the_sampler_are_the_loaders(fs):
    loader = Loader(fs, batch_size=8, n_frames=16)
    loader.set_epoch(3)
    assert next(iter(loader.sampler())) == (3, 0)
    assert loader.state_dict()["epoch"] == loader.sampler().epoch == 3
    assert len(list(loader.sampler())) == 5
    assert loader.state_dict()["epoch"] == 4


@pytest.mark.parametrize("window", [1, 3])
def test_a_window_reads_a_few_files_at_a_time(fs, window):
    one = order(Loader(fs, n_frames=4, window=window, seed=3))
    files = fs.files[one]
    n_files = len(np.unique(files))
    last_seen = {file: i for i, file in enumerate(files)}
    first_seen = {file: i for i, file in reversed(list(enumerate(files)))}
    at_once = max(
        sum(first_seen[f] <= i <= last_seen[f] for f in last_seen) for i in range(len(files))
    )
    assert at_once <= window < n_files
    if window > 1:
        changes = np.count_nonzero(np.diff(files))
        assert changes > n_files  # they are mixed
    assert order(Loader(fs, n_frames=4, window=window, seed=4)) != one


@pytest.mark.parametrize("taken", [0, 1, 3, 5])
def test_a_resumed_epoch_goes_on_as_if_uninterrupted(fs, taken):
    options = {"batch_size": 8, "n_frames": 8, "seed": 5}
    whole = Loader(fs, **options)
    expected = [order([batch]) for _ in range(3) for batch in whole]

    stopped = Loader(fs, **options)
    given = [order([batch]) for batch in stopped]  # epoch 0
    iterator = iter(stopped)
    given += [order([next(iterator)]) for _ in range(taken)]
    state = json.loads(json.dumps(stopped.state_dict()))

    resumed = Loader(fs, **options)
    resumed.load_state_dict(state)
    given += [order([batch]) for batch in resumed]
    given += [order([batch]) for batch in resumed]
    assert given == expected


def test_an_epoch_that_is_broken_off_starts_again(fs):
    loader = Loader(fs, batch_size=8, n_frames=8)
    first = [order([next(iter(loader))]) for _ in range(3)]
    assert first[0] == first[1] == first[2]
    loader.set_epoch(4)
    assert order([next(iter(loader))]) == order([loader[4, 0]]) != first[0]


def test_a_state_of_another_loader_is_refused(fs):
    state = Loader(fs, n_frames=8, seed=1).state_dict()
    for other in (Loader(fs, n_frames=8, seed=2), Loader(fs, n_frames=9, seed=1)):
        with pytest.raises(ValueError, match="the state is of a loader with"):
            other.load_state_dict(state)
    part = Loader(fs.select(label="label 1"), n_frames=8, seed=1)
    with pytest.raises(ValueError, match="the state is of a loader with clips"):
        part.load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("batch_size", 5), ("n_frames", 9), ("crops_per_clip", 2), ("shuffle", False)),
        *(("window", 3), ("seed", 2), ("drop_last", True), ("rank", 1), ("world_size", 3)),
    ],
)
def test_a_state_is_refused_whatever_decides_on_batches(fs, name, value):
    options = {"batch_size": 4, "n_frames": 8, "window": 2, "seed": 1, "world_size": 2}
    loader, other = Loader(fs, **options), Loader(fs, **{**options, name: value})
    with pytest.raises(ValueError, match=f"the state is of a loader with {name} = "):
        other.load_state_dict(loader.state_dict())


def test_a_state_of_another_set_is_refused(fs):
    loader = Loader(fs)
    state = loader.state_dict()
    state["of"]["key"] = "another"
    with pytest.raises(ValueError, match="the state is of a loader with key = 'another'"):
        loader.load_state_dict(state)


def test_augmentation_depends_on_seed_epoch_and_item_alone(fs):
    masking = partial(spec_augment, bin_width=10, frame_width=5)
    whole = Loader(fs, batch_size=40, n_frames=8, augment=masking)[1, 0]
    halves = [
        Loader(fs, batch_size=20, n_frames=8, augment=masking, rank=r, world_size=2)[1, 0]
        for r in range(2)
    ]
    together = np.concatenate([half["features"] for half in halves])
    assert together.tobytes() == whole["features"].tobytes()
    plain = Loader(fs, batch_size=40, n_frames=8)[1, 0]["features"]
    assert (whole["features"] == 0).mean() > 0.1 > (plain == 0).mean()
    kept = whole["features"] != 0
    np.testing.assert_array_equal(whole["features"][kept], plain[kept])


def test_augmentation_must_keep_the_shape(fs):
    with pytest.raises(ValueError, match=r"augment made \(7, 40\) of \(8, 40\)"):
        Loader(fs, batch_size=2, n_frames=8, augment=lambda x, rng: x[1:])[0, 0]


def test_pickled_loaders_give_the_same(fs):
    loader = Loader(fs, batch_size=8, n_frames=8, window=2)
    again = pickle.loads(pickle.dumps(loader))  # noqa: S301
    assert [order([a]) for a in again] == [order([b]) for b in loader]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"n_frames": 0}, "n_frames = 0"),
        ({"window": 0}, "window = 0"),
        ({"crops_per_clip": 2}, "crops_per_clip = 2 needs n_frames"),
        ({"rank": 2, "world_size": 2}, "rank = 2: it must be 0 to 1"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_numbers_out_of_range_are_refused(fs, options, message):
    with pytest.raises(ValueError, match=message):
        Loader(fs, **options)


def test_batches_there_are_not(fs):
    with pytest.raises(IndexError, match="batch 2 of 2"):
        Loader(fs)[0, 2]


def test_a_state_says_what_it_always_said(fs):
    """States that were saved before still load: names and values of what decides on batches."""
    loader = Loader(fs, batch_size=3, n_frames=4, crops_per_clip=2, window=1, seed=7, pad_value=5.0)
    assert loader.state_dict()["of"] == {
        "key": fs.key,
        "clips": hashlib.sha256(fs.rows.tobytes()).hexdigest()[:32],
        "batch_size": 3,
        "n_frames": 4,
        "crops_per_clip": 2,
        "shuffle": True,
        "window": 1,
        "seed": 7,
        "drop_last": False,
        "rank": 0,
        "world_size": 1,
    }


def test_settings_stay_as_they_were_checked(fs):
    loader = Loader(fs, batch_size=3)
    with pytest.raises(AttributeError):
        loader.batch_size = 0
    with pytest.raises(TypeError):
        Loader(fs, 3)
