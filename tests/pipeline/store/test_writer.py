import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.pipeline.recipes.recipe import Recipe, Store
from basilar.pipeline.store.writer import FeatureWriter, Geometry, create_features


@settings(max_examples=25)
@given(
    n_frames=st.lists(st.integers(1, 70), min_size=1, max_size=30),
    shard_rows=st.sampled_from([1, 8, 16, 32]),
)
def test_clips_do_not_overlap_and_cross_files_only_if_they_must(
    tmp_path_factory, n_frames, shard_rows
):
    table = {"representation": {"kind": "waveform"}, "store": {"shard_mib": 1}}
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Geometry, "of", lambda *_, **__: Geometry(1, shard_rows))
        with FeatureWriter(folder / "features", Recipe.from_dict(table)) as written:
            for frames in n_frames:
                written.put(np.zeros((frames, 1), np.float32))
    starts, n_files = written.starts, len(list(folder.glob("features/c/*/0")))
    assert written.n_frames == n_frames
    ends = [start + frames for start, frames in zip(starts, n_frames, strict=True)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert -(-ends[-1] // shard_rows) == n_files
    for start, end, frames in zip(starts, ends, n_frames, strict=True):
        crosses = start // shard_rows != (end - 1) // shard_rows
        if crosses:
            assert frames > shard_rows
            assert start % shard_rows == 0


@pytest.mark.parametrize(
    ("chunk_kib", "shard_mib", "n_bins", "itemsize", "expected"),
    [
        (128, 32, 128, 4, (256, 65536)),
        (128, 32, 257, 8, (32, 8192)),
        (128, 32, 1, 4, (32768, 8388608)),
        (1, 1, 4096, 4, (1, 64)),
        (65536, 1, 128, 4, (131072, 131072)),
    ],
)
def test_geometry_is_powers_of_two_below_the_sizes_asked_for(
    chunk_kib, shard_mib, n_bins, itemsize, expected
):
    geometry = Geometry.of(
        Store(chunk_kib=chunk_kib, shard_mib=shard_mib), n_bins=n_bins, itemsize=itemsize
    )
    assert (geometry.chunk_rows, geometry.shard_rows) == expected


@pytest.mark.parametrize(
    ("codec", "settings"),
    [("compact", ("lz4", "bitshuffle", 5, 4)), ("archive", ("zstd", "shuffle", 5, 4))],
)
def test_compressed_files_hold_what_was_put(tmp_path, codec, settings):
    table = {"kind": "log_mel", "n_mels": 40}
    small = {"codec": codec, "chunk_kib": 4, "shard_mib": 1}
    recipe = Recipe.from_dict({"representation": table, "store": small})
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 40)).astype(np.float32) for n in (3, 4000, 10_000, 7)]
    with FeatureWriter(tmp_path / "features", recipe) as written:
        for x in features:
            written.put(x)
    array = zarr.open_array(tmp_path / "features", mode="r")
    (blosc,) = array.compressors
    named = [getattr(each, "value", each) for each in (blosc.cname, blosc.shuffle)]  # newer: texts
    found = (*named, blosc.clevel, blosc.typesize)
    assert found == settings  # other ones would make other files of the same features
    rows = array[:]
    for start, x in zip(written.starts, features, strict=True):
        assert rows[start : start + len(x)].tobytes() == x.tobytes()
    assert np.isfinite(rows).all(axis=1).sum() == sum(map(len, features))


KINDS = [
    {"kind": "log_mel", "n_mels": 40},
    {"kind": "log_mel", "n_mels": 40, "dtype": "float16"},
    {"kind": "stft", "n_fft": 2048},
    {"kind": "waveform"},
]


@pytest.mark.parametrize("table", KINDS, ids=lambda table: "-".join(map(str, table.values())))
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(1, 500_000), min_size=1, max_size=4))
def test_files_are_those_that_zarr_writes(tmp_path_factory, table, lengths):
    recipe = Recipe.from_dict({"representation": table, "store": {"chunk_kib": 4, "shard_mib": 1}})
    kind = recipe.representation
    bins, rng = kind.columns(), np.random.default_rng(0)
    features = [rng.normal(size=(-(-n // bins), bins)).astype(kind.stored_dtype()) for n in lengths]
    features.append(features[0][::-1])  # not contiguous
    ours, theirs = (tmp_path_factory.mktemp(name) / "features" for name in ("ours", "theirs"))
    with FeatureWriter(ours, recipe) as written:
        for x in features:
            written.put(x)
    shard_rows = Geometry.of_recipe(recipe).shard_rows
    n_files = -(-(written.starts[-1] + len(features[-1])) // shard_rows)
    array = create_features(theirs, recipe, n_files)
    rows = np.full(array.shape, array.fill_value)
    for start, x in zip(written.starts, features, strict=True):
        rows[start : start + len(x)] = x
    array[...] = rows
    found = {path.relative_to(ours): path for path in ours.rglob("*") if path.is_file()}
    assert len(found) == n_files + 1
    for name, file in found.items():
        assert file.read_bytes() == (theirs / name).read_bytes(), name
