import errno
import os
import resource
import zlib
from pathlib import Path

import numpy as np
import pytest

from basilar.pipeline.audio.isolation import Lost, isolated
from basilar.pipeline.storage import scratch
from basilar.pipeline.storage.scratch import SignalSpan, Spool, release_pages, scratch_allocator

pytestmark = pytest.mark.usefixtures("disk")  # pages of files on a disk are counted


def resident(field):
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def test_small_arrays_are_in_memory_and_large_ones_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 1 << 20)
    empty = scratch_allocator(tmp_path / "there")
    assert empty((1 << 18,), np.float32).base is None
    assert not (tmp_path / "there").exists()
    before = resident("RssAnon"), resident("RssFile")
    large = empty((8, 1 << 20), np.complex64)
    large[...] = 1
    assert (large.shape, large.dtype, large.flags.writeable) == ((8, 1 << 20), np.complex64, True)
    assert resident("RssAnon") - before[0] < 8 << 20
    assert resident("RssFile") - before[1] >= 60 << 20
    assert list((tmp_path / "there").iterdir()) == []
    assert (large == 1).all()


def test_arrays_that_do_not_fit_together_lie_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 3 << 20)
    empty = scratch_allocator(tmp_path)
    assert [empty((1 << 18,), np.float32).base is None for _ in range(4)] == [True] * 3 + [False]


def test_what_was_read_of_a_file_is_given_back_and_can_be_read_again(tmp_path, noise):
    with Spool(tmp_path) as spool:
        places = [spool.put([noise(1 << 22, seed)]) for seed in (0, 1)]
        mapped = spool.mapped()
        signals = [place.of(mapped) for place in places]
    sums = [y.sum() for y in signals]
    held = resident("RssFile")
    release_pages([*signals, noise(10)])
    assert held - resident("RssFile") >= 30 << 20
    assert [y.sum() for y in signals] == sums


def test_a_disk_without_room_is_an_error_that_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as caught:
        scratch_allocator(tmp_path)((10,), np.float32)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    monkeypatch.delattr(os, "posix_fallocate")
    assert (
        scratch_allocator(tmp_path)((10,), np.float32).tolist() == [0.0] * 10
    )  # a file's holes are zeros


def test_a_file_that_may_not_grow_is_an_error_that_names_the_folder(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Spool(tmp_path) as spool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # Python ignores SIGXFSZ
        try:
            with pytest.raises(OSError, match="too large") as caught:
                spool.put([np.zeros(1000, np.float32)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(tmp_path)
        assert spool.put([np.zeros(10, np.float32)]).begin == 0


def test_signals_of_children_are_mapped(noise):
    lengths = [5, 1, 7000, 1]
    with Spool(None) as spool:
        assert spool.mapped().size == 0

        def put(items):
            for n in items:
                yield spool.put(np.array_split(noise(n, n), 3))

        places = [SignalSpan(*place) for _, place in isolated(put, lengths)]
        mapped = spool.mapped()
        signals = [place.of(mapped) for place in places]
    for n, y, place in zip(lengths, signals, places, strict=True):
        np.testing.assert_array_equal(y, noise(n, n), strict=True)
        assert (place.samples, place.crc32) == (n, zlib.crc32(noise(n, n)))
        assert not y.flags.writeable
        assert y.ctypes.data % 64 == 0


def test_samples_of_a_child_that_died_are_passed_over(noise):
    with Spool(None) as spool:

        def put(items):
            for n in items:
                place = spool.put([noise(n, n)])
                if n == 13:
                    os.kill(os.getpid(), 9)
                yield place

        found = dict(isolated(put, [100, 13, 50]))
        assert isinstance(found.pop(1), Lost)
        first, last = (SignalSpan(*found[i]).of(spool.mapped()) for i in (0, 2))
    np.testing.assert_array_equal(first, noise(100, 100))
    np.testing.assert_array_equal(last, noise(50, 50))


def test_a_signal_that_ends_in_an_error_leaves_nothing(noise):
    def broken():
        yield noise(100)
        raise ValueError("broken")

    with Spool(None) as spool:
        assert spool.put([noise(16)]).begin == 0
        with pytest.raises(ValueError, match="broken"):
            spool.put(broken())
        assert spool.put([noise(1)]).begin == 64
