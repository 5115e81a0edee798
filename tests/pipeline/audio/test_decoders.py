"""What the libraries get wrong, or do to a process; what they decode is in test_audio.py."""

import contextlib
import errno
import gc
import os
import re
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from basilar.pipeline.audio import AudioError, blocks, decode, probe, sniff
from tests.pipeline.audio.test_decoding import SEVEN_CODECS, corpus, reason_of


def test_nothing_of_ffmpeg_outlives_a_call():
    path = corpus("music") / "pyminiaudio__music.m4a"
    gc.collect()
    gc.disable()  # a worker that decodes 100,000 files cannot wait for the cycle collector
    try:
        probe(path)
        decode(path, duration=0.1)
        iterator = blocks(path)
        next(iterator)
        iterator.close()
        # By type: isinstance would ask dead weak references of other tests for their class.
        alive = [o for o in gc.get_objects() if issubclass(type(o), av.container.InputContainer)]
    finally:
        gc.enable()
    assert alive == []


def test_damage_that_sends_ffmpeg_before_the_beginning(tmp_path):
    content = bytearray((corpus("music") / "audio-decode__mono.wma").read_bytes())
    content[294] = 128  # found by random search: a seek to a negative place
    path = tmp_path / "a.wma"
    path.write_bytes(content)
    assert reason_of(decode, path) == "corrupt"


@pytest.mark.parametrize("form", ["mov", "matroska"])
def test_texts_that_are_not_utf_8(form, tmp_path, noise):
    """Neither those of a file nor those of a stream keep PyAV, old or new, from its sound."""
    path = tmp_path / "a"
    y = (noise(8000) * 32768).astype(np.int16)
    with av.open(path, "w", format=form) as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.metadata["title"], stream.metadata["title"] = "Gruesse", "Gruesse"
        frame = av.AudioFrame.from_ndarray(y[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    content = path.read_bytes()
    assert content.count(b"Gruesse") == 2
    path.write_bytes(content.replace(b"Gruesse", b"Gr\xfc\xdfe \xff"))  # as long
    assert probe(path).decoder == "ffmpeg"
    np.testing.assert_array_equal(decode(path)[0] * 32768, y)


@contextlib.contextmanager
def failing_disk(path):
    """Let reads from an open file fail, as those of a disk do, by both decoders."""
    with open("/proc/self/mem", "rb") as nothing:  # noqa: PTH123, reading at address 0 is EIO
        for entry in Path("/proc/self/fd").iterdir():
            if entry.resolve() == path.resolve():
                os.dup2(nothing.fileno(), int(entry.name))
        yield


@pytest.mark.parametrize("name", [name for name in SEVEN_CODECS if not name.endswith(".wma")])
def test_disk_that_fails_is_not_a_damaged_file(name):
    path = corpus("music") / name
    iterator = blocks(path, block_samples=4096)
    next(iterator)
    with failing_disk(path), pytest.raises(OSError, match=re.escape(name)) as caught:
        list(iterator)
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == os.fspath(path)


@pytest.mark.parametrize("name", SEVEN_CODECS)
def test_disk_that_fails_while_the_decoder_opens_the_file(name, monkeypatch):
    path = corpus("music") / name
    library, function = (soundfile, "SoundFile") if sniff(path) == "soundfile" else (av, "open")
    original = getattr(library, function)

    def open_it(*arguments, **keywords):
        with failing_disk(path):
            return original(*arguments, **keywords)

    # The file that libsndfile or PyAV is given stays open and fails; so does what is tried next.
    monkeypatch.setattr(library, function, open_it)
    for read in (probe, decode):
        with pytest.raises(OSError, match=re.escape(name)) as caught:
            read(path)
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("name", [SEVEN_CODECS[i] for i in (1, 2, 3)])
def test_disk_that_fails_kills_nobody_through_a_mapping(name, monkeypatch):
    path = corpus("music") / name

    def fail(*_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("mmap.mmap", None)
    monkeypatch.setattr("os.read", fail)
    with pytest.raises(OSError, match=re.escape(name)) as caught:
        decode(path)
    assert caught.value.errno == errno.ESTALE


def test_mp3_error_does_not_say_that_the_file_is_missing():
    with pytest.raises(AudioError, match="its MPEG audio cannot be decoded") as caught:
        probe(corpus("awkward/corrupt") / "small__mp3.mp3")
    assert "exist" not in str(caught.value)
