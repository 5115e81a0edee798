import csv
import io
import itertools
import multiprocessing
import os
import pickle
import re
import struct
import subprocess
import sys
import wave
import zipfile
import zlib
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basilar.pipeline import audio
from basilar.pipeline.audio import (
    AudioError,
    Limits,
    blocks,
    decode,
    identity,
    probe,
    sniff,
)
from tests.conftest import CORPORA

REASONS = set(get_args(audio.Reason))
# By their LAME headers nearly all of these two is padding: 1105 samples before the sound, which end
# in the second frame, and more behind it. FFmpeg 9 cuts off both; older ones, by which outcomes.csv
# was written, only that behind.
OF_FFMPEG_9 = {
    "awkward/valid/mutagen__lame397v9short.mp3": {"expected_text": "(47 samples @ 24000 Hz, 2 ch)"},
    "awkward/valid/tinytag__vbr_xing_header_short.mp3": {"expected": "empty"},
}
# tmp_path is one directory for all examples: every example overwrites the same file.
SHARED_FOLDER = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def corpus(path: str) -> Path:
    found = CORPORA / path
    if not found.exists():
        pytest.skip(f"the corpus {path} is not beside the checkout (../shared/corpora)")
    return found


def expectations(table: Path) -> list[dict[str, str]]:
    """The rows of a corpus table, for the FFmpeg that is here."""
    here = OF_FFMPEG_9 if av.library_versions["libavcodec"] >= (63,) else {}
    with table.open(newline="", encoding="utf-8") as file:
        return [{**row, **here.get(row["file"], {})} for row in csv.DictReader(file)]


def rows(path: str) -> list:
    """The rows of a corpus table, or one parameter that skips by the table's name."""
    table = CORPORA / path
    if not table.exists():
        reason = f"the corpus table {path} is not beside the checkout (../shared/corpora)"
        return [pytest.param({}, id=path, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(row, id=row["file"]) for row in expectations(table)]


def reason_of(function, *arguments, **keywords) -> str:
    with pytest.raises(AudioError) as caught:
        function(*arguments, **keywords)
    assert caught.value.reason in REASONS
    assert caught.value.message
    assert repr(os.fsdecode(arguments[0])) in str(caught.value)
    return caught.value.reason


def whole(path) -> np.ndarray:
    return np.concatenate(list(blocks(path)))


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(-30000, 30000, (samples, channels)).astype(np.int16)


def pcm_wav(data: bytes, *, data_size: int, riff_size: int, bits: int = 16) -> bytes:
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 8000 * bits // 8, bits // 8, bits)
    head = b"RIFF" + struct.pack("<I", riff_size) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    return head + b"data" + struct.pack("<I", data_size) + data


# The corpora


@pytest.mark.parametrize("row", rows("awkward/outcomes.csv"))
def test_awkward_file_has_its_outcome(row):
    path = CORPORA / row["file"]
    expected = row["expected"]
    if expected == "decode":
        numbers = re.fullmatch(r"decode to (\d+) Hz, (\d+) ch, (\d+) samples", row["expected_text"])
        rate, channels, samples = map(int, numbers.groups())
    elif expected == "decode_one":
        numbers = re.search(r"\((\d+) samples @ (\d+) Hz(?:, (\d+) ch)?\)", row["expected_text"])
        samples, rate = int(numbers[1]), int(numbers[2])
        channels = int(numbers[3]) if numbers[3] else None
    elif expected == "decode_documented":
        decode_documented(row, path)
        return
    elif expected == "decode_or_flag":
        # One of the two is cut short, which both decoders hide; the other's fmt contradicts itself.
        reason = "truncated" if "cut" in row["why_odd"] else "unsupported"
        assert reason_of(decode, path) == reason_of(probe, path) == reason
        return
    else:
        reason = reason_of(decode, path)
        assert reason == expected or expected in ("reject", "reject_or_flag")
        return
    info = probe(path)
    mono, decoded_rate = decode(path)
    assert (decoded_rate, len(mono)) == (rate, samples)
    assert info.sample_rate == rate
    assert info.channels == channels or channels is None
    assert mono.dtype == np.float32
    assert mono.flags.c_contiguous
    assert np.isfinite(mono).all()
    if info.decoder == "soundfile":  # containers of FFmpeg's may round their own length
        assert info.n_samples == samples


def decode_documented(row, path):
    if "VALUES DIFFER" in row["expected_text"] and "be-3ch" not in row["file"]:
        # 24 bits in 32 without a word on which side: neither decoder is right, so refused.
        assert reason_of(decode, path) == "unsupported"
        return
    mono, rate = decode(path)
    ours = "pyav" if row["file"].endswith(".opus") else "soundfile"
    assert f" {rate} Hz" in row[ours]
    assert f" {len(mono)} samples" in row[ours]
    if "be-3ch" in row["file"]:  # big-endian: the peak that only libsndfile gets right
        assert np.abs(whole(path)).max() == 1.0


def test_outcomes_cover_all_files():
    table = corpus("awkward/outcomes.csv")
    with table.open(newline="", encoding="utf-8") as file:
        listed = {row["file"] for row in csv.DictReader(file)}
    assert len(listed) == 129


@pytest.mark.parametrize("row", rows("music/music.csv"))
def test_music_has_the_recorded_length(row):
    path = CORPORA / row["file"]
    info = probe(path)
    mono, rate = decode(path)
    opus = info.codec == "opus"
    assert rate == info.sample_rate == (48000 if opus else int(row["rate"]))
    by_ffmpeg = opus or not row["samples_soundfile"]
    assert len(mono) == int(row["samples_pyav" if by_ffmpeg else "samples_soundfile"])
    assert info.decoder == ("ffmpeg" if by_ffmpeg else "soundfile") == sniff(path)
    assert info.channels == int(row["channels"])
    if not by_ffmpeg:
        assert info.n_samples == len(mono)
    # AAC and Opus priming, ASF and granule rounding: a header is within 0.1 s, or 0.3 % of it.
    assert abs(info.n_samples - len(mono)) <= max(0.1 * rate, 0.003 * len(mono))


def dali() -> list:
    return sorted((CORPORA / "refs/dali_decode").glob("*.npy")) or ["refs/dali_decode"]


@pytest.mark.parametrize("reference", dali(), ids=lambda p: Path(p).stem)
def test_decodes_as_dali_recorded(reference):
    corpus("refs/dali_decode")
    kind = reference.name.split("__")[0]
    mono, rate = decode(reference.with_suffix("." + kind))
    expected = np.load(reference).reshape(-1)
    error = np.abs(mono * 32768 - expected)
    assert rate == 16000
    assert len(mono) == len(expected)
    # WAV and FLAC are exact. The Vorbis reference was rounded to 16 bits: half a unit, and another
    # decoder's float arithmetic on top.
    assert error.max() <= (1 if kind == "ogg" else 0)


def minimp3() -> list:
    found = sorted((CORPORA / "refs/minimp3_vectors").glob("*.bit"))
    return [p for p in found if p.with_suffix(".pcm").stat().st_size] or ["refs/minimp3_vectors"]


@pytest.mark.parametrize("stream", minimp3(), ids=lambda p: Path(p).stem)
def test_decodes_mpeg_streams_as_minimp3(stream):
    corpus("refs/minimp3_vectors")
    expected = np.fromfile(stream.with_suffix(".pcm"), "<i2")
    try:
        decoded = whole(stream)
    except AudioError:
        # A single frame, and damaged ones: no decoder of ours accepts them, and says so.
        assert stream.name.startswith(("ILL", "l3-nonstandard"))
        return
    decoded = decoded * 32768
    expected = expected.reshape(-1, decoded.shape[1])

    def error(shift):
        ours, theirs = decoded[max(0, -shift) :], expected[max(0, shift) :]
        n = min(len(ours), len(theirs))
        assert n > 0.9 * max(len(ours), len(theirs))
        return np.abs(ours[:n].clip(-32768, 32767) - theirs[:n]).max()

    # A stream without a header may start a frame or the decoder's delay later: find the shift.
    # ISO's limit for a full-accuracy decoder is 1 unit of 16 bits, and the reference is rounded.
    assert min(error(shift) for shift in range(-1152, 1153)) <= 1


# Excerpts


SEVEN_CODECS = [
    "pyminiaudio__music.wav",
    "pyminiaudio__music.flac",
    "pyminiaudio__music.ogg",
    "pyminiaudio__music.mp3",
    "pyminiaudio__music.m4a",
    "audiofile__gs-16b-1c-16000hz.opus",
    "audio-decode__mono.wma",
    "audiofile__gs-16b-1c-44100hz.aac",
]


def decodable() -> list:
    """All music, and every awkward file that is expected to decode."""
    awkward = [row for row in rows("awkward/outcomes.csv") if row.values[0]]
    kept = [row for row in awkward if row.values[0]["expected"].startswith("decode")]
    return [*rows("music/music.csv"), *kept]


@pytest.mark.parametrize("row", decodable())
def test_excerpt_is_a_slice_of_the_whole(row):
    path = CORPORA / row["file"]
    try:
        mono, rate = decode(path)
    except AudioError:
        assert row["expected"] in ("decode_documented", "decode_or_flag")
        return
    n = len(mono)
    # Odd samples, in the first and in later packets; all but the first; the very last.
    for start, count in [(0, 1), (n // 3 | 1, n // 5 | 1), (1, None), (n - 1, 1), (n - 1, None)]:
        if start < n:
            stop = None if count is None else start + count
            excerpt, _ = decode(path, offset=start / rate, duration=count and count / rate)
            np.testing.assert_array_equal(excerpt, mono[start:stop][: n - start], strict=True)
    assert reason_of(decode, path, offset=n / rate) == "empty"
    with pytest.raises(AudioError, match="less than one sample"):
        decode(path, duration=0.4 / rate)
    assert reason_of(decode, path, offset=(n - 1) / rate, duration=3 / rate) == "truncated"


def test_excerpt_borders_round_half_to_even(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(20), 1000)
    mono, _ = decode(path)
    for offset, first in [(0.0005, 0), (0.0015, 2), (0.0025, 2), (0.0035, 4)]:
        np.testing.assert_array_equal(decode(path, offset=offset)[0], mono[first:])


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_excerpt_beyond_the_end(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(8000), 8000)
    assert len(decode(path, offset=0.5, duration=0.5001)[0]) == 4000  # one sample more is rounding
    with pytest.raises(AudioError, match=r"ends at sample 12000; it holds 8000") as caught:
        decode(path, offset=0.5, duration=1.0)
    assert caught.value.reason == "truncated"
    for offset in (1.0, 7.0):
        with pytest.raises(AudioError, match=rf"starts at sample {offset * 8000:.0f}; it holds 8"):
            decode(path, offset=offset, duration=0.1)
        assert reason_of(decode, path, offset=offset) == "empty"
    for arguments in ({"offset": -1.0}, {"duration": 0.0}, {"offset": float("nan")}):
        with pytest.raises(ValueError, match="must be 0 or more"):
            decode(path, **arguments)


# Values

LOSSLESS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("RF64", "PCM_16"),
    ("AIFF", "PCM_24"), ("W64", "FLOAT"), ("AU", "PCM_16"), ("CAF", "PCM_24"), ("NIST", "PCM_16"),
    ("FLAC", "PCM_S8"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"),
]  # fmt: skip


@SHARED_FOLDER
@given(
    data=st.data(),
    form=st.sampled_from(LOSSLESS),
    channels=st.integers(1, 8),
    rate=st.sampled_from([8000, 22050, 44100, 192000]),
)
def test_lossless_formats_return_the_samples_written(tmp_path, data, form, channels, rate):
    container, subtype = form
    samples = data.draw(st.integers(1, 9000))
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    if subtype == "FLOAT":
        x = (random.standard_normal((samples, channels)) * 10).astype(np.float32)
        expected = x
    else:
        bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}[subtype]
        x = random.integers(-(2**31), 2**31 - 1, (samples, channels), dtype=np.int32)
        x = x >> (32 - bits) << (32 - bits)
        expected = (x / 2**31).astype(np.float32)
    path = tmp_path / "a.bin"
    soundfile.write(path, x, rate, format=container, subtype=subtype)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.n_samples) == (rate, channels, samples)
    assert not info.lossy
    assert info.duration == samples / rate
    np.testing.assert_array_equal(whole(path), expected, strict=True)
    index = data.draw(st.integers(0, channels - 1))
    np.testing.assert_array_equal(decode(path, channels=index)[0], expected[:, index], strict=True)


def test_mean_is_sum_in_order_times_reciprocal(tmp_path):
    path = tmp_path / "a.wav"
    x = (np.random.default_rng(1).standard_normal((70001, 3)) * 3).astype(np.float32)
    soundfile.write(path, x, 44100, subtype="FLOAT")
    expected = ((x[:, 0] + x[:, 1]) + x[:, 2]) * np.float32(1 / 3)
    mono, rate = decode(path)
    np.testing.assert_array_equal(mono, expected, strict=True)
    assert (rate, mono.flags.c_contiguous) == (44100, True)
    np.testing.assert_array_equal(decode(path, channels="first")[0], x[:, 0], strict=True)


def test_mean_of_two_channels(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, [[0.5, 0.25], [-1.0, 0.0]], 8000)
    assert decode(path)[0].tolist() == [0.375, -0.5]


@pytest.mark.parametrize("index", [2, -1])
def test_channel_out_of_range(tmp_path, index):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(10, 2), 8000)
    with pytest.raises(AudioError, match=rf"channel {index} is asked for; it has 2") as caught:
        decode(path, channels=index)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20])
def test_nan_inf_and_absurd_values_are_refused(tmp_path, bad):
    path = tmp_path / "a.wav"
    x = np.zeros((70000, 2), np.float32)
    x[69999, 1] = bad
    soundfile.write(path, x, 44100, subtype="FLOAT")
    assert reason_of(decode, path) == "too_loud_or_nan"
    assert reason_of(decode, path, channels="first") == "too_loud_or_nan"
    assert reason_of(list_of_blocks, path) == "too_loud_or_nan"


def list_of_blocks(path, **keywords):
    return list(blocks(path, **keywords))


@pytest.mark.parametrize("name", ["pyminiaudio__music.flac", "pyminiaudio__music.m4a"])
def test_blocks_are_full_but_for_the_last(name):
    path = corpus("music") / name
    parts = list(blocks(path, block_samples=10000))
    assert {part.shape for part in parts[:-1]} == {(10000, 2)}
    assert 0 < len(parts[-1]) <= 10000
    assert {part.dtype for part in parts} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate(parts), whole(path), strict=True)


# Lies, cuts and damage


def test_truncated_wav_is_not_a_short_clip(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(8000), 8000)
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    assert reason_of(decode, path) == reason_of(probe, path) == "truncated"
    assert reason_of(decode, path, duration=0.1) == "truncated"


@pytest.mark.parametrize("kind", ["AIFF", "RF64", "AU", "W64", "NIST", "CAF", "FLAC", "OGG"])
def test_cut_file_is_refused(tmp_path, kind):
    path = tmp_path / "a.bin"
    soundfile.write(path, noise(60000), 8000, format=kind)
    content = path.read_bytes()
    for part in (0.99, 0.6, 0.2):
        path.write_bytes(content[: int(len(content) * part)])
        assert reason_of(decode, path) in ("truncated", "corrupt")


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE])
def test_streamed_wav_has_no_length_and_is_whole(tmp_path, size):
    path = tmp_path / "a.wav"
    x = noise(1000)[:, 0]
    riff = 36 if size == 0 else 0xFFFFFFFF
    path.write_bytes(pcm_wav(x.tobytes(), data_size=size, riff_size=riff))
    np.testing.assert_array_equal(decode(path)[0] * 32768, x)
    assert probe(path).n_samples == 1000
    assert not probe(path).lossy
    assert probe(path).codec == "pcm_s16"


def test_closed_wav_without_samples_is_empty_whatever_follows(tmp_path):
    path = tmp_path / "a.wav"
    tags = b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(pcm_wav(tags, data_size=0, riff_size=36 + len(tags)))
    assert reason_of(decode, path) == reason_of(probe, path) == "empty"
    assert reason_of(list_of_blocks, path) == "empty"


def test_odd_padding_is_no_cut(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(pcm_wav(b"\x80\x90\xa0", data_size=3, riff_size=39, bits=8))
    assert decode(path)[0].tolist() == [0.0, 0.125, 0.25]


def flac_file(path, samples=30000, subtype="PCM_16") -> bytearray:
    soundfile.write(path, noise(samples), 16000, format="FLAC", subtype=subtype)
    return bytearray(path.read_bytes())


def set_flac_total(content: bytearray, total: int) -> None:
    packed = int.from_bytes(content[18:26], "big") >> 36 << 36 | total
    content[18:26] = packed.to_bytes(8, "big")


@pytest.mark.parametrize("total", [1, 29999, 30001, 2**36 - 1])
def test_flac_with_a_lying_count_is_refused(tmp_path, total):
    path = tmp_path / "a.flac"
    content = flac_file(path)
    set_flac_total(content, total)
    path.write_bytes(content)
    assert reason_of(probe, path) == reason_of(decode, path) == "corrupt"


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 4095, 4096, 4097, 600000])
def test_flac_without_a_count_goes_to_ffmpeg_and_is_exact(tmp_path, samples):
    path = tmp_path / "a.flac"
    content = flac_file(path, samples)
    expected, _ = decode(path)
    assert probe(path).decoder == "soundfile"
    set_flac_total(content, 0)
    path.write_bytes(content)
    info = probe(path)
    assert (info.decoder, info.n_samples, info.codec) == ("ffmpeg", samples, "flac")
    np.testing.assert_array_equal(decode(path)[0], expected, strict=True)
    content[len(content) // 2 : len(content) // 2 + 4] = b"oops"
    path.write_bytes(content)
    if samples == 600000:
        assert reason_of(decode, path) == "corrupt"  # FFmpeg alone would drop a frame


def test_flac_tags_after_the_last_frame(tmp_path):
    path = tmp_path / "a.flac"
    content = flac_file(path)
    expected, _ = decode(path)
    path.write_bytes(content + b"TAG" + bytes(200000))
    np.testing.assert_array_equal(decode(path)[0], expected)


@pytest.mark.parametrize("name", SEVEN_CODECS[1:3])
def test_damage_inside_is_never_silent(tmp_path, name):
    content = bytearray((corpus("music") / name).read_bytes())
    path = tmp_path / name
    for where in (0.3, 0.5, 0.9):
        damaged = bytearray(content)
        damaged[int(len(content) * where)] ^= 0x10
        path.write_bytes(damaged)
        assert reason_of(decode, path) == "corrupt"


def test_excerpt_of_a_damaged_flac_is_right_or_refused(tmp_path):
    content = bytearray((corpus("music") / "pyminiaudio__music.flac").read_bytes())
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    mono, rate = decode(path)
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    refused = 0
    for start in range(0, len(mono) - 2000, 2000):
        try:
            excerpt, _ = decode(path, offset=start / rate, duration=2000 / rate)
        except AudioError:
            refused += 1
        else:
            np.testing.assert_array_equal(excerpt, mono[start : start + 2000])
    assert refused  # a seek may also fail because it probes the damaged frame


def ogg_pages(content: bytes) -> list[bytes]:
    borders = [m.start() for m in re.finditer(b"OggS\0", content)] + [len(content)]
    return [content[a:b] for a, b in itertools.pairwise(borders)]


def test_ogg_page_that_is_missing_or_displaced(tmp_path):
    path = tmp_path / "a.ogg"
    pages = ogg_pages((corpus("music") / "pyminiaudio__music.ogg").read_bytes())
    for kept, message in [
        (pages[:-1], "not marked as the last"),
        (pages[:4] + pages[5:], "pages are missing before byte"),
        ([*pages[:4], b"junk", *pages[4:]], "no Ogg page at byte"),
    ]:
        path.write_bytes(b"".join(kept))
        with pytest.raises(AudioError, match=message):
            decode(path)


def test_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(300000), 8000)
    iterator = blocks(path, block_samples=1000)
    next(iterator)
    os.truncate(path, 200000)
    with pytest.raises(AudioError, match="the header says 300000 samples, there are") as caught:
        list(iterator)
    assert caught.value.reason == "truncated"


def test_cut_inside_the_last_packets(tmp_path):
    path = tmp_path / "a.mov"
    with av.open(path, "w", format="mov", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(20000).T.copy(), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    np.testing.assert_array_equal(decode(path)[0] * 32768, noise(20000)[:, 0])
    assert not probe(path).lossy
    path.write_bytes(path.read_bytes()[:-1000])
    assert reason_of(decode, path) == "truncated"


def joined(tmp_path, *names) -> Path:
    path = tmp_path / Path(names[0]).name
    path.write_bytes(b"".join((corpus("music") / name).read_bytes() for name in names))
    return path


def test_rate_that_changes_inside(tmp_path):
    mp3 = joined(tmp_path, "pyminiaudio__music.mp3", "spleeter__audio_example.mp3")
    assert reason_of(decode, mp3) == "rate_changes"
    clarinet = "sampled__bass-clarinet_A2_phrase_mezzo-forte_legato.mp3"
    channels = joined(tmp_path, "spleeter__audio_example.mp3", clarinet)
    assert reason_of(decode, channels) == "rate_changes"
    ogg = joined(tmp_path, "pyminiaudio__music.ogg", "audiomentations__hens.ogg")
    assert reason_of(decode, ogg) == "rate_changes"
    opus = joined(tmp_path, "audiofile__gs-16b-1c-16000hz.opus", "warzone2100-music__menu.opus")
    assert reason_of(decode, opus) == "rate_changes"
    aac = tmp_path / "a.aac"
    aac.write_bytes(adts(44100, "mono") + adts(22050, "stereo"))
    assert reason_of(decode, aac) == "rate_changes"


def adts(rate: int, layout: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        sound = np.zeros((1, 8192 * (2 if layout == "stereo" else 1)), np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="flt", layout=layout)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


def test_same_file_twice_in_one_is_not_one_clip(tmp_path):
    # libsndfile stops at the end of the first, which its header or its stream gives.
    for name in ("pyminiaudio__music.mp3", "pyminiaudio__music.flac", "pyminiaudio__music.ogg"):
        assert reason_of(decode, joined(tmp_path, name, name)) in ("corrupt", "unsupported")


def test_cut_mp3_and_lying_xing(tmp_path):
    content = bytearray((corpus("music") / "pyminiaudio__music.mp3").read_bytes())
    path = tmp_path / "a.mp3"
    path.write_bytes(content[: len(content) * 6 // 10])
    assert reason_of(decode, path) == "truncated"
    count = content.index(b"Info") + 8
    content[count : count + 4] = (2**31).to_bytes(4, "big")  # more than the file could hold
    path.write_bytes(content)
    assert len(decode(path)[0]) == probe(path).n_samples > 220000


def test_cut_matroska_is_refused(tmp_path):
    content = (corpus("awkward/valid") / "pydub__test5.webm").read_bytes()
    path = tmp_path / "a.webm"
    path.write_bytes(content[: len(content) * 6 // 10])
    assert reason_of(decode, path) == "truncated"


# Choice of the decoder


def png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(72))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "text " * 1000)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"R",
        b"RIFF\x04\x00\x00\x00WEBP",
        b"file,label\na.wav,dog\n" * 100,
        b"import os\n\nprint(os.name)\n" * 50,
        "Gr\u00fc\u00dfe\n".encode("utf-16") * 100,
        Path(__file__).read_bytes(),
        Path(sys.executable).read_bytes()[:100000],
        b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 20,
        png(),
        zipped(),
        bytes(10000),
        b"\xff" * 10000,
        b"\xff\xf1\x50\x80" + bytes(10000),
        b"\xff\xf1\x50\x80\x20\x00" + bytes(10000),
    ],
)
def test_other_files_are_not_audio(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert sniff(path) is None
    assert reason_of(probe, path) == "not_audio"
    assert reason_of(decode, path) == "not_audio"


STARTS = [
    b"", b"RIFF\x40\x00\x00\x00WAVEfmt \x10\x00\x00\x00", b"RIFX\x00\x00\x00\x40WAVEfmt ",
    b"RF64\xff\xff\xff\xffWAVEds64", b"FORM\x00\x00\x00\x40AIFFCOMM\x00\x00\x00\x12", b".snd",
    b"fLaC\x00\x00\x00\x22\x10\x00\x10\x00", b"OggS\x00\x02" + bytes(8), b"NIST_1A\n   1024\n",
    b"ID3\x03\x00\x00\x00\x00\x00\x00", b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80", b"\x0b\x77",
    b"caff\x00\x01\x00\x00desc", b"\x00\x00\x00\x18ftypM4A ", b"\x1aE\xdf\xa3", b"wvpk", b"MAC ",
    b"#!AMR\n", b"tBaK", b"TTA1", b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel", b"DSD ",
    b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
]  # fmt: skip


def outcome(function, path) -> str:
    """The reason of the error, or "audio". Any other exception is a failure."""
    try:
        function(path)
    except AudioError as error:
        return error.reason
    return "audio"


@settings(SHARED_FOLDER, max_examples=300)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=3000))
def test_random_bytes_never_crash(tmp_path, start, rest):
    path = tmp_path / "a.bin"
    path.write_bytes(start + rest)
    assert sniff(path) in (None, "soundfile", "ffmpeg")
    assert {outcome(probe, path), outcome(decode, path)} <= REASONS | {"audio"}


@settings(SHARED_FOLDER, max_examples=150)
@given(data=st.data())
def test_damaged_files_never_crash(tmp_path, data):
    names = SEVEN_CODECS if CORPORA.exists() else []
    if not names:
        pytest.skip("the corpus music is not beside the checkout (../shared/corpora)")
    name = data.draw(st.sampled_from(names))
    content = bytearray((CORPORA / "music" / name).read_bytes()[:20000])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    assert {outcome(probe, path), outcome(decode, path)} <= REASONS | {"audio"}


def test_choice_ignores_the_name(tmp_path):
    for source, decoder in [
        ("pyminiaudio__music.mp3", "soundfile"),
        ("pyminiaudio__music.m4a", "ffmpeg"),
    ]:
        content = (corpus("music") / source).read_bytes()
        results = []
        for name in ("a.wav", "a.mp3", "a.aac", "a.txt", "noextension"):
            path = tmp_path / name
            path.write_bytes(content)
            assert sniff(path) == probe(path).decoder == decoder
            results.append(decode(path)[0])
        for result in results:
            np.testing.assert_array_equal(result, results[0], strict=True)


def test_ogg_of_two_interleaved_streams_goes_to_ffmpeg(tmp_path):
    vorbis = ogg_pages((corpus("music") / "pyminiaudio__music.ogg").read_bytes())
    opus = ogg_pages((corpus("music") / "audiofile__gs-16b-1c-16000hz.opus").read_bytes())
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join([vorbis[0], opus[0], *vorbis[1:], *opus[1:]]))
    assert sniff(path) == probe(path).decoder == "ffmpeg"
    assert len(decode(path)[0]) in (220854, 759939)  # one of the two, whole


@pytest.mark.parametrize(
    ("name", "codec", "lossy"),
    [
        ("mutagen__empty.tta", "tta", False),
        ("tinytag__alac_silence.m4a", "alac", False),
        ("ExoPlayer__sample_dthd.mp4", "truehd", False),
        ("scipy__test-8000Hz-le-3ch-5S-64bit.wav", "pcm_s64", False),
        ("mutagen__dsd.wv", "wavpack", True),  # DSD: the values are those of FFmpeg's filter
        ("ExoPlayer__sample_nb.amr", "amr_nb", True),
        ("tinytag__gsm_6_10.wav", "gsm_ms", True),
        ("tinytag__mpeg2_16khz.mp2", "mp2", True),
    ],
)
def test_lossy_is_what_another_decoder_may_change(name, codec, lossy):
    info = probe(corpus("awkward/valid") / name)
    assert (info.codec, info.lossy) == (codec, lossy)


def test_identity_names_the_library():
    assert re.fullmatch(r"libsndfile \d+\.\d+\.\d+", identity("soundfile"))
    assert re.fullmatch(r"libavcodec \d+\.\d+\.\d+", identity("ffmpeg"))


def test_importing_loads_no_decoder():
    code = "import sys, basilar.pipeline.audio; print(sys.modules.keys() & {'av', 'soundfile'})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# Limits, paths, errors, processes


def test_limits(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(80000, 2), 8000)
    assert reason_of(decode, path, limits=Limits(max_seconds=9.9)) == "too_long"
    assert reason_of(decode, path, limits=Limits(max_bytes=80000 * 8 - 1)) == "too_long"
    assert reason_of(decode, path, limits=Limits(max_channels=1)) == "unsupported"
    assert reason_of(list_of_blocks, path, limits=Limits(max_seconds=5)) == "too_long"
    exact = Limits(max_seconds=10, max_channels=2, max_bytes=80000 * 8)
    assert len(decode(path, limits=exact)[0]) == 80000
    excerpt = decode(path, offset=9.0, duration=1.0, limits=Limits(max_seconds=1))[0]
    assert len(excerpt) == 8000


@pytest.mark.parametrize(
    "name", [b"a b.wav", b"line\nbreak.wav", b"\xff\xfe.wav", "ä\u4e2d.m4a".encode()]
)
def test_odd_names(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118, bytes have no Path
    soundfile.write(tmp_path / "a.wav", noise(100), 8000)
    (tmp_path / "a.wav").rename(Path(os.fsdecode(path)))
    for spelling in (path, os.fsdecode(path), Path(os.fsdecode(path))):
        assert sniff(spelling) == "soundfile"
        assert probe(spelling).n_samples == len(decode(spelling)[0]) == 100
    if name.endswith(b".m4a"):
        content = (corpus("music") / "pyminiaudio__music.m4a").read_bytes()
        Path(os.fsdecode(path)).write_bytes(content)
        assert probe(path).codec == "aac"
    Path(os.fsdecode(path)).write_bytes(b"text")
    with pytest.raises(AudioError) as caught:
        decode(path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # printable anywhere: no lone surrogates


@pytest.mark.parametrize("function", [sniff, probe, decode, list_of_blocks])
def test_unreadable_is_an_oserror(tmp_path, function):
    with pytest.raises(FileNotFoundError):
        function(tmp_path / "missing.wav")
    with pytest.raises(IsADirectoryError):
        function(tmp_path)


def test_error_pickles_and_names_the_file(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"text")
    with pytest.raises(AudioError) as caught:
        decode(path)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301, our own bytes
    assert (copy.reason, copy.message, str(copy)) == (
        "not_audio", caught.value.message, f"{os.fspath(path)!r}: {copy.message}"
    )  # fmt: skip


def test_decodes_alike_in_forked_workers():
    paths = [corpus("music") / name for name in SEVEN_CODECS[3:7]]
    here = [decode(path)[0].tobytes() for path in paths]  # both decoders are in use before the fork
    with multiprocessing.get_context("fork").Pool(2) as pool:
        there = [mono.tobytes() for mono, _ in pool.map(decode, paths)]
    assert there == here


def test_wave_module_agrees(tmp_path):
    path = tmp_path / "a.wav"
    x = noise(500, 2)
    with wave.open(os.fspath(path), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(x.tobytes())
    np.testing.assert_array_equal(whole(path) * 32768, x)
