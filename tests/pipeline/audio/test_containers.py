"""What `audio` decides on; whole files of all kinds are tested with it."""

import io

import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline.audio.containers import identify


def found_in(data, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(data)
    with io.FileIO(file) as opened:
        return identify(opened)


@pytest.mark.parametrize(
    ("name", "subtype", "decoder"),
    [
        ("WAV", "PCM_16", "soundfile"),
        ("RF64", "PCM_24", "soundfile"),
        ("AIFF", "PCM_16", "soundfile"),
        ("FLAC", "PCM_16", "soundfile"),
        ("OGG", "VORBIS", "soundfile"),
        ("OGG", "OPUS", "ffmpeg"),
        ("MP3", "MPEG_LAYER_III", "soundfile"),
        ("CAF", "PCM_16", "soundfile"),
        ("AU", "FLOAT", "soundfile"),
    ],
)
def test_formats_are_known_by_their_bytes(noise, tmp_path, name, subtype, decoder):
    written = io.BytesIO()
    sf.write(written, noise(4800), 48000, format=name, subtype=subtype)
    found = found_in(written.getvalue(), tmp_path)
    assert found.decoder == decoder
    assert found.problem is None


def test_a_header_that_claims_more_than_the_file_holds(noise, tmp_path):
    written = io.BytesIO()
    sf.write(written, noise(4800), 48000, format="WAV", subtype="PCM_16")
    assert found_in(written.getvalue()[:-100], tmp_path).problem.reason == "truncated"


@given(
    head=st.sampled_from([b"", b"RIFF", b"OggS", b"fLaC", b"ID3", b"FORM", b"\xff\xfb"]),
    rest=st.binary(max_size=300),
)
def test_any_bytes_are_identified_or_not_and_nothing_breaks(tmp_path_factory, head, rest):
    found = found_in(head + rest, tmp_path_factory.getbasetemp())
    assert found is None or found.decoder in ("soundfile", "ffmpeg")
