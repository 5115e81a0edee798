import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ShardingCodec, ZstdCodec

from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.store import reader, shard_file
from basilar.pipeline.store.reader import RowReader
from tests.pipeline.store.test_publish import recipe_of
from tests.pipeline.store.test_shard import write_arrays

pytestmark = pytest.mark.usefixtures("disk")  # pages of files on a disk are counted


def blosc(cname, shuffle):
    return BloscCodec(cname=cname, shuffle=shuffle, clevel=5)


OURS = {"none": None, "compact": blosc("lz4", "bitshuffle"), "archive": blosc("zstd", "shuffle")}


def create(folder, *, shape, chunk_rows, shard_rows, dtype="float32", codec="none", **other):
    """An array as `store.py` creates it, or with other settings."""
    settings = {
        "chunks": (chunk_rows, shape[1]),
        "shards": (shard_rows, shape[1]),
        "dtype": dtype,
        "fill_value": complex(np.nan, np.nan) if dtype.startswith("complex") else np.nan,
        "compressors": OURS[codec],
        "dimension_names": ("row", "bin"),
    }
    return zarr.create_array(folder, shape=shape, **{**settings, **other})


def noise(*shape, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + (1j if dtype.startswith("complex") else 0)).astype(dtype)


@pytest.fixture(params=["none", "compact"])
def stored(request, tmp_path):
    """A folder of eight files of 64 rows, each half full, and what is in them."""
    array = create(
        tmp_path / "features", shape=(512, 16), chunk_rows=8, shard_rows=64, codec=request.param
    )
    for i in range(8):
        array[64 * i : 64 * i + 32] = noise(32, 16, seed=i)
    return tmp_path / "features", array[:]


def foreign(name, chunk_rows, shard_rows, bins):
    """Settings of layouts that only zarr-python reads."""

    def sharding(**settings):
        return {
            "chunks": (shard_rows, bins),
            "shards": None,
            "compressors": None,
            "serializer": ShardingCodec(chunk_shape=(chunk_rows, bins), **settings),
        }

    return {
        "gzip": {"compressors": GzipCodec()},
        "zstd": {"compressors": ZstdCodec()},
        "two codecs": {"compressors": [OURS["compact"], GzipCodec()]},
        "big endian": {"serializer": BytesCodec(endian="big")},
        "bins chunked": {"chunks": (chunk_rows, 1)},
        "no shards": {"shards": None},
        "other keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        "other fill": {"fill_value": 0},
        "index first": sharding(index_location="start"),
        "index without checksum": sharding(index_codecs=[BytesCodec()]),
    }[name]


FOREIGN = {
    "gzip": "codecs",
    "zstd": "codecs",
    "two codecs": "codecs",
    "big endian": "codecs",
    "bins chunked": "codecs",
    "no shards": "sharded",
    "other keys": "chunk_key_encoding",
    "other fill": "fill_value",
    "index first": "codecs",
    "index without checksum": "codecs",
}


@settings(max_examples=50)
@given(data=st.data())
def test_rows_are_those_that_zarr_reads(data):
    chunk_rows = data.draw(st.integers(1, 9))
    shard_rows = chunk_rows * data.draw(st.integers(1, 6))
    shape = (data.draw(st.integers(1, 4 * shard_rows)), data.draw(st.integers(2, 40)))
    dtype = data.draw(st.sampled_from(["float16", "float32", "complex64"]))
    layout = data.draw(st.sampled_from([*OURS, *OURS, *OURS, *OURS, *FOREIGN]))
    with tempfile.TemporaryDirectory() as folder:
        other = {}
        if layout in FOREIGN:
            other = foreign(layout, chunk_rows, shard_rows, shape[1])
        array = create(
            Path(folder) / "features",
            shape=shape,
            chunk_rows=chunk_rows,
            shard_rows=shard_rows,
            dtype=dtype,
            codec=layout if layout in OURS else "none",
            **other,
        )
        for base in range(0, shape[0], shard_rows):
            # A part of every file, with zeros in it: chunks on both sides of it are left out.
            n = min(shard_rows, shape[0] - base)
            begin = data.draw(st.integers(0, n - 1))
            end = data.draw(st.integers(begin + 1, n))
            x = noise(end - begin, shape[1], dtype=dtype, seed=base)
            x[:: data.draw(st.integers(1, 5))] = 0
            array[base + begin : base + end] = x
        expected = array[:]
        for access in ("map", "read"):
            if layout in FOREIGN:
                with pytest.warns(RuntimeWarning, match=FOREIGN[layout]):
                    rows = RowReader(Path(folder) / "features", access=access)
                assert rows.access == "zarr"
            else:
                rows = RowReader(Path(folder) / "features", access=access)
                assert rows.access == access
            assert (rows.shape, rows.dtype) == (shape, expected.dtype)
            for _ in range(4):
                first, stop = sorted(data.draw(st.tuples(*[st.integers(0, shape[0])] * 2)))
                wanted = expected[first:stop]
                assert rows.read(first, stop).tobytes() == wanted.tobytes()
                batch = np.full((3, stop - first, shape[1]), 7, dtype)
                rows.read_into(first, batch[1])
                assert batch[1].tobytes() == wanted.tobytes()
                assert (batch[::2] == 7).all()
            assert rows.read(0, shape[0]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("codec", ["none", "compact", "archive"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_what_the_store_writes_is_read_without_zarr(tmp_path, codec, dtype):
    kind = {"kind": "stft"} if dtype == "complex64" else {"kind": "magnitude", "dtype": dtype}
    recipe = recipe_of({**kind, "n_fft": 1022, "hop_length": 511}, codec=codec)
    arrays = [noise(n, 512, dtype=dtype, seed=n) for n in (3, 600, 5)]
    group = write_arrays(tmp_path / "shard", arrays, recipe)
    rows = RowReader(tmp_path / "shard" / "features")
    assert rows.access == "map"
    for start, x in zip(group["start"][:].tolist(), arrays, strict=True):
        assert rows.read(start, start + len(x)).tobytes() == x.tobytes()
    expected = group["features"][:]
    assert rows.read(0, len(expected)).tobytes() == expected.tobytes()  # and NaN where unused
    assert (rows.shape, rows.dtype) == (expected.shape, expected.dtype)
    assert rows.shard_rows == group["features"].shards[0]


def test_a_mapped_read_is_a_read_only_view_that_outlives_its_reader(tmp_path):
    array = create(tmp_path / "features", shape=(128, 16), chunk_rows=8, shard_rows=64)
    array[:] = noise(128, 16)
    rows = RowReader(tmp_path / "features", access="map")
    view = rows.read(3, 60)
    assert np.shares_memory(view, rows.read(0, 64))
    assert not view.flags.writeable
    assert rows.read(60, 70).flags.writeable  # of two files: a new array
    rows.close()
    assert view.tobytes() == array[3:60].tobytes()
    assert rows.read(3, 60).tobytes() == view.tobytes()


def test_rows_are_converted_into_arrays_of_other_types_and_strides(stored):
    folder, expected = stored
    for access in ("map", "read"):
        rows = RowReader(folder, access=access)
        for out in (
            np.zeros((20, 16), np.float64),
            np.zeros((16, 20), np.float32).T,
            np.zeros((20, 20), np.float32)[:, 2:18],
        ):
            rows.read_into(10, out)
            np.testing.assert_array_equal(out, expected[10:30].astype(out.dtype))
        with pytest.raises(ValueError, match="16 bins, but out has 1"):
            rows.read_into(0, np.empty((5, 1), np.float32))


def test_rows_outside_of_the_array_are_refused(stored):
    folder, _ = stored
    for access in ("map", "read"):
        rows = RowReader(folder, access=access)
        for _ in range(2):  # before and after their file is open
            for first, stop in [(-1, 5), (-5, -1), (5, 4), (500, 513), (513, 513)]:
                with pytest.raises(IndexError, match=f"rows {first} to {stop} of 512"):
                    rows.read(first, stop)
            with pytest.raises(IndexError, match="rows 510 to 513 of 512"):
                rows.read_into(510, np.empty((3, 16), np.float32))
            rows.read(0, 5), rows.read(448, 460)


def test_the_array_may_end_within_a_chunk(tmp_path):
    array = create(tmp_path / "features", shape=(61, 4), chunk_rows=8, shard_rows=64)
    array[:] = expected = noise(61, 4)
    for access in ("map", "read"):
        rows = RowReader(tmp_path / "features", access=access)
        assert rows.read(50, 61).tobytes() == expected[50:].tobytes()
        with pytest.raises(IndexError, match="rows 50 to 62 of 61"):
            rows.read(50, 62)


def with_index(file, change):
    """Change the index of 8 chunks of a shard file, and its checksum with it."""
    data = file.read_bytes()
    index = np.frombuffer(data[-132:-4], "<u8").reshape(8, 2).copy()
    change(index)
    checksum = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    file.write_bytes(data[:-132] + index.tobytes() + checksum)


@pytest.mark.parametrize("access", ["map", "read"])
def test_chunks_may_lie_in_any_order(stored, access):
    folder, expected = stored

    def swap(index):
        index[[0, 3]] = index[[3, 0]]

    with_index(folder / "c" / "3" / "0", swap)
    expected[192:224] = expected[[*range(216, 224), *range(200, 216), *range(192, 200)]]
    rows = RowReader(folder, access=access)
    assert rows.read(190, 300).tobytes() == expected[190:300].tobytes()
    assert rows.read(200, 208).tobytes() == expected[200:208].tobytes()


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-20])


def cut_to_nothing(file):
    file.write_bytes(b"")


def flip_a_bit_of_the_index(file):
    data = bytearray(file.read_bytes())
    data[-131] ^= 2  # of the first offset: it becomes 512, where the second chunk may begin
    file.write_bytes(data)


def point_behind_the_file(file):
    with_index(file, lambda index: index.__setitem__((3, 0), 1 << 40))


def point_into_the_index(file):
    with_index(file, lambda index: index.__setitem__((3, 0), file.stat().st_size - 200))


def overflow(file):
    with_index(file, lambda index: index.__setitem__((3, 0), 2**64 - 8))


def another_length(file):
    with_index(file, lambda index: index.__setitem__((3, 1), 15))


@pytest.mark.parametrize("access", ["map", "read"])
@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        cut_to_nothing,
        flip_a_bit_of_the_index,
        point_behind_the_file,
        point_into_the_index,
        overflow,
        another_length,
    ],
)
def test_damage_is_an_error_that_names_the_file(stored, access, damage):
    folder, expected = stored
    file = folder / "c" / "2" / "0"
    damage(file)
    rows = RowReader(folder, access=access)
    with pytest.raises(DamagedArtifactError, match=rf"{file}: damaged .*basilar verify"):
        rows.read(127, 140)
    assert rows.read(0, 100).tobytes() == expected[:100].tobytes()


@pytest.mark.parametrize("offset", [4, 8, 12, 0])
@pytest.mark.parametrize("stored", ["compact"], indirect=True)
def test_a_frame_of_another_length_or_kind_is_damage(stored, offset):
    folder, expected = stored
    rows = RowReader(folder)
    file = folder / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)
    for _ in range(2):
        with pytest.raises(DamagedArtifactError, match=rf"{file}: damaged \(chunk 0"):
            rows.read(0, 3)
    assert rows.read(8, 100).tobytes() == expected[8:100].tobytes()


def test_a_chunk_that_cannot_be_decoded_leaves_no_trace(tmp_path):
    blocks = BloscCodec(cname="lz4", shuffle="noshuffle", blocksize=1024)
    array = create(
        tmp_path / "features", shape=(128, 64), chunk_rows=64, shard_rows=128, compressors=blocks
    )
    array[:] = expected = np.repeat(np.arange(128, dtype=np.float32), 64).reshape(128, 64)
    file = tmp_path / "features" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[-28:-20], "little")
    data[length - 40 : length] = bytes(40)
    file.write_bytes(data)
    rows = RowReader(tmp_path / "features")
    for _ in range(2):
        assert rows.read(64, 70).tobytes() == expected[64:70].tobytes()
        with pytest.raises(DamagedArtifactError, match=r"chunk 0"):
            rows.read(0, 3)


@pytest.mark.parametrize("access", ["map", "read"])
def test_a_missing_file_is_an_error_that_names_it(stored, access):
    folder, _ = stored
    file = folder / "c" / "5" / "0"
    file.unlink()
    rows = RowReader(folder, access=access)
    with pytest.raises(FileNotFoundError, match=rf"{file}: it is missing; basilar verify"):
        rows.read(0, 512)
    with pytest.raises(FileNotFoundError, match=r"zarr\.json"):
        RowReader(folder / "c")


def test_a_file_cut_short_after_it_was_opened_is_an_error(stored):
    folder, _ = stored
    rows = RowReader(folder, access="read")
    rows.read(0, 1)
    os.truncate(folder / "c" / "0" / "0", 8)
    with pytest.raises(DamagedArtifactError, match="cut short since"):
        rows.read(0, 32)


def test_another_layout_is_told_once(tmp_path):
    array = create(tmp_path / "features", shape=(64, 4), chunk_rows=8, shard_rows=64, fill_value=0)
    array[:] = noise(64, 4)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        rows = RowReader(tmp_path / "features")
        for _ in range(3):
            assert rows.read(3, 9).tobytes() == array[3:9].tobytes()
    assert [w.category for w in told] == [RuntimeWarning]
    assert str(tmp_path / "features") in str(told[0].message)
    assert "fill_value" in str(told[0].message)
    assert told[0].filename == __file__


def n_open(folder):
    """Descriptors and maps of this process below a folder."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return tuple(sum(str(folder) in line for line in lines) for lines in (links, maps))


@pytest.mark.parametrize("access", ["map", "read"])
def test_a_bounded_number_of_files_is_open(tmp_path, access, monkeypatch):
    array = create(tmp_path / "features", shape=(1200, 4), chunk_rows=2, shard_rows=2)
    array[:] = expected = noise(1200, 4)
    rows = RowReader(tmp_path / "features", access=access)
    assert b"".join(rows.read(i, i + 2).tobytes() for i in range(0, 1200, 2)) == expected.tobytes()
    assert n_open(tmp_path) == ((512, 512) if access == "map" else (512, 0))
    monkeypatch.setattr(reader, "_MOST_OPEN", 3)
    view = rows.read(0, 2)
    assert rows.read(0, 1200).tobytes() == expected.tobytes()
    assert n_open(tmp_path) == ((4, 4) if access == "map" else (3, 0))
    assert view.tobytes() == expected[:2].tobytes()
    rows.close()
    del view
    assert n_open(tmp_path) == (0, 0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_pickles_as_its_settings(stored, method):
    folder, expected = stored
    rows = RowReader(folder, memory_limit=1)
    rows.read(0, 512)
    again = pickle.loads(pickle.dumps(rows))  # noqa: S301
    assert (again.access, again.shape) == (rows.access, rows.shape)
    assert len(pickle.dumps(rows)) < 500
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(rows.read, (10, 500)).tobytes() == expected[10:500].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("access", ["map", "read"])
@pytest.mark.parametrize("use_threads", [None, False])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_other_threads_read_can_read(stored, access, use_threads, monkeypatch):
    monkeypatch.setattr(reader.blosc, "use_threads", use_threads)  # zarr sets it to False
    folder, expected = stored
    rows = RowReader(folder, access=access)
    rows.read(0, 512)
    done = threading.Event()

    def keep_reading():
        while not done.is_set():
            rows.read(0, 512)

    threads = [threading.Thread(target=keep_reading) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                right = rows.read(0, 512).tobytes() == expected.tobytes()
                os._exit(0 if right else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert rows.read(0, 512).tobytes() == expected.tobytes()


@pytest.mark.parametrize("access", ["map", "read"])
def test_threads_share_a_reader_while_files_are_closed_under_them(stored, access, monkeypatch):
    monkeypatch.setattr(reader, "_MOST_OPEN", 2)
    folder, expected = stored
    rows = RowReader(folder, access=access)
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(300):
                first, stop = np.sort(rng.integers(0, 513, 2)).tolist()
                if rows.read(first, stop).tobytes() != expected[first:stop].tobytes():
                    wrong.append((first, stop))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def status(name, of="status"):
    """A number of this process: kB in memory of `status`, bytes from a disk of `io`."""
    for line in Path("/proc/self", of).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


def evict(folder):
    for file in (folder / "c").rglob("0"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def create_large(folder, dtype, codec="none"):
    """Four files of 8 MiB, with 128 bins and chunks of 32 KiB."""
    n = (32 << 20) // (128 * np.dtype(dtype).itemsize)
    array = create(
        folder, shape=(n, 128), chunk_rows=n >> 10, shard_rows=n >> 2, dtype=dtype, codec=codec
    )
    for i in range(4):
        array[i * n // 4 : (i + 1) * n // 4] = noise(n // 4, 128, dtype=dtype)
    return folder


@pytest.fixture(scope="module", params=["float16", "float32"])
def large(request, tmp_path_factory):
    return create_large(tmp_path_factory.mktemp("large") / "features", request.param)


@pytest.mark.parametrize("access", ["map", "read"])
@pytest.mark.parametrize("codec", ["none", "compact"])
def test_cold_crops_read_little_more_than_themselves_from_the_disk(large, access, codec, tmp_path):
    if codec == "compact":
        large = create_large(tmp_path / "features", str(RowReader(large).dtype), "compact")
    rows = RowReader(large, access="read")
    evict(large)
    before = status("read_bytes", "io")
    whole = rows.read(0, rows.shape[0])
    if status("read_bytes", "io") - before < whole.nbytes // 2:
        pytest.skip("this file system keeps its pages in memory")
    evict(large)
    rows = RowReader(large, access=access)
    before = status("read_bytes", "io")
    returned = 0
    for first in np.random.default_rng(1).integers(0, rows.shape[0] - 128, 64).tolist():
        crop = rows.read(first, first + 128)
        assert crop.tobytes() == whole[first : first + 128].tobytes()
        returned += crop.nbytes
    assert returned / 4 < status("read_bytes", "io") - before < 3 * returned

    evict(large)
    rows = RowReader(large, access=access)
    before = status("read_bytes", "io")
    for first in range(0, rows.shape[0], 128):
        rows.read(first, first + 128).sum(dtype=np.float32)
    assert status("read_bytes", "io") - before < 1.1 * whole.nbytes


def test_rows_read_one_after_the_other_are_read_ahead(large, monkeypatch):
    class Map(mmap.mmap):
        asked = 0

        def madvise(self, *arguments):
            Map.asked += 1
            super().madvise(*arguments)

    monkeypatch.setattr(shard_file.mmap, "mmap", Map)
    rows = RowReader(large, access="map")
    for first in range(0, rows.shape[0], 64):
        rows.read(first, first + 64)
    assert Map.asked < 40


def test_memory_stays_flat_over_a_set_larger_than_the_limit(large):
    def grown_by(rows):
        out = np.ones((128, 128), rows.dtype)
        rows.read_into(0, out)
        before = status("RssAnon") + status("RssFile")
        for first in np.random.default_rng(1).permutation(rows.shape[0] // 128).tolist():
            rows.read_into(128 * first, out)
        return status("RssAnon") + status("RssFile") - before

    rows = RowReader(large, memory_limit=1 << 20)
    assert rows.access == "read"
    assert grown_by(rows) < 2 << 10
    assert grown_by(RowReader(large, access="map")) > 16 << 10


def test_auto_maps_what_fits_into_memory(stored):
    folder, _ = stored
    n_bytes = sum(file.stat().st_size for file in folder.rglob("c/*/0"))
    # Of compressed files, some stand for all, and sizes differ.
    assert RowReader(folder, memory_limit=n_bytes * 2).access == "map"
    assert RowReader(folder).access == "map"
    assert RowReader(folder, memory_limit=n_bytes // 2).access == "read"
    assert RowReader(folder, access="read").access == "read"
    with pytest.raises(ValueError, match="mmap"):
        RowReader(folder, access="mmap")


def test_the_size_of_many_files_is_judged_by_some(tmp_path, monkeypatch):
    array = create(tmp_path / "features", shape=(200, 4), chunk_rows=2, shard_rows=2)
    array[:] = 1
    n_bytes = 100 * (2 * 4 * 4 + 16 + 4)
    (tmp_path / "features" / "c" / "1" / "0").unlink()
    monkeypatch.setattr(reader, "_SAMPLED", 7)
    assert RowReader(tmp_path / "features", memory_limit=n_bytes).access == "map"
    assert RowReader(tmp_path / "features", memory_limit=n_bytes - 1).access == "read"


def test_the_reader_imports_neither_zarr_nor_luigi_nor_mlflow():
    heavy = {"zarr", "luigi", "mlflow"}
    code = f"import sys, basilar.pipeline.store.reader; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
