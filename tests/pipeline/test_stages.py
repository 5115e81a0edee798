import zlib

import numpy as np
import pytest
import soundfile as sf

from pipeline import stages
from pipeline.artifacts import Quarantined, Waveforms
from pipeline.keys import values_hash
from pipeline.manifest import ManifestError
from pipeline.recipe import Recipe
from pipeline.scan import scan
from pipeline.shards import Plan
from pipeline.stages import ChangedAudioError, Source
from pipeline.transform import Transform

RECIPE = Recipe.from_dict(
    {"resample": {"sample_rate": 8000}, "representation": {"kind": "log_mel", "n_fft": 512}}
)
TRANSFORM = Transform(RECIPE)


def at_rate(sample_rate):
    return Transform.from_recipe(
        {"resample": {"sample_rate": sample_rate}, "representation": {"kind": "log_mel"}}
    )


def sources(folder):
    (shard,) = Plan(RECIPE, scan(folder)[0]).shards
    return shard.sources


def test_decoding_a_shard(audio_folder):
    clips = sources(audio_folder)
    decoded = stages.decode(clips, TRANSFORM, root=audio_folder)
    assert decoded.contents == [clip.content for clip in clips]
    assert len(decoded.contents) == 11  # twelve files, two of them equal
    for clip, y, rate, source in zip(
        clips, decoded.signals, decoded.sample_rates, decoded.sources, strict=True
    ):
        expected, _ = sf.read(audio_folder / clip.path, dtype="float32")
        np.testing.assert_array_equal(y, expected)
        assert (rate, source) == (8000, (8000, len(expected)))
    assert decoded.seconds["decode"] > 0


def test_excerpts_are_decoded_alone(audio_folder):
    whole, _ = sf.read(audio_folder / "a" / "00.wav", dtype="float32")
    (clip,) = (clip for clip in sources(audio_folder) if clip.path == "a/00.wav")
    excerpt = Source("x", clip.path, clip.sha256, offset=0.1, duration=0.05)
    (y,) = stages.decode([excerpt], TRANSFORM, root=audio_folder).signals
    np.testing.assert_array_equal(y, whole[800:1200])


def test_what_cannot_be_decoded_is_quarantined_and_the_rest_goes_on(audio_folder):
    (audio_folder / "broken.wav").write_bytes(b"RIFF not really")
    decoded = stages.decode(sources(audio_folder), TRANSFORM, root=audio_folder)
    assert len(decoded.contents) == 11
    (lost,) = decoded.quarantined
    assert (lost.stage, lost.content) not in decoded.contents
    assert lost.stage == "decode"
    assert lost.reason in ("corrupt", "not_audio", "truncated")
    assert lost.message


def test_a_missing_or_changed_file_is_an_error_and_no_quarantine(audio_folder):
    clips = sources(audio_folder)
    sf.write(audio_folder / "a" / "00.wav", np.ones(10), 8000)
    with pytest.raises(ChangedAudioError, match=r"00\.wav has changed since it was scanned"):
        stages.decode(clips, TRANSFORM, root=audio_folder)
    (audio_folder / "a" / "00.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"00\.wav"):
        stages.decode(clips, TRANSFORM, root=audio_folder)


def test_a_path_that_leaves_the_root_is_not_opened(audio_folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ManifestError, match="leads out of the root"):
        stages.decode([Source("x", "../secret", "x")], TRANSFORM, root=audio_folder)
    (audio_folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestError, match="leads out of the root"):
        stages.decode([Source("x", "link", "x")], TRANSFORM, root=audio_folder)


def waveforms(*signals, sample_rate=8000):
    names = [f"{i:064x}" for i in range(len(signals))]
    rates = [sample_rate] * len(signals)
    sources = [(sample_rate, y.size) for y in signals]
    checksums = [(zlib.crc32(y), zlib.crc32(y)) for y in signals]
    return Waveforms(names, list(signals), rates, sources, checksums)


def test_resampling_a_shard(noise):
    before = waveforms(noise(8000), noise(4000, 1))
    before.quarantined.append(Quarantined("q", "decode", "corrupt", "m"))
    after = stages.resample(before, at_rate(16000))
    assert [y.size for y in after.signals] == [16000, 8000]
    assert after.sample_rates == [16000, 16000]
    assert after.sources == before.sources
    assert after.quarantined == before.quarantined


def test_a_clip_that_resampling_leaves_nothing_of_is_quarantined(noise):
    after = stages.resample(waveforms(noise(1), noise(8000), sample_rate=192_000), at_rate(8000))
    assert len(after.contents) == 1
    (lost,) = after.quarantined
    assert (lost.stage, lost.reason) == ("resample", "empty")
    assert lost.message == "1 samples at 192000 Hz leave none at 8000 Hz"


def test_representing_a_shard(noise):
    clips = waveforms(noise(8000), noise(100, 1))
    shard = stages.represent(clips, TRANSFORM)
    assert [x.shape for x in shard.features] == [(16, 128), (1, 128)]
    for x, moments, values in zip(shard.features, shard.moments, shard.values, strict=True):
        assert x.dtype == np.float32
        assert values == values_hash(x)
        np.testing.assert_allclose(moments[0], (x.astype(float) + 100).sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(moments[2:], [x.min(axis=0), x.max(axis=0)])


def test_a_clip_has_the_same_values_alone_and_in_a_shard(noise):
    signals = [noise(n, n) for n in (8000, 300, 5001, 17, 40_000)]
    together = stages.represent(waveforms(*signals), TRANSFORM)
    for y, values in zip(signals, together.values, strict=True):
        assert stages.represent(waveforms(y), TRANSFORM).values == [values]


def test_clips_shorter_than_a_frame_are_quarantined(noise):
    transform = Transform.from_recipe(
        {"representation": {"kind": "mel", "n_fft": 512, "center": False}}
    )
    shard = stages.represent(waveforms(noise(511), noise(512)), transform)
    assert len(shard.contents) == 1
    (lost,) = shard.quarantined
    assert lost[1:] == ("representation", "empty", "511 samples are less than one frame of the mel")


def test_values_that_the_stored_type_cannot_hold_are_quarantined(noise):
    transform = Transform.from_recipe({"representation": {"kind": "mel", "dtype": "float16"}})
    loud = np.full(4000, 1e3, np.float32)
    shard = stages.represent(waveforms(loud, noise(4000)), transform)
    assert [x.dtype for x in shard.features] == [np.float16]
    (lost,) = shard.quarantined
    assert (lost.reason, lost.message) == (
        "too_loud_or_nan",
        "the mel has values that float16 cannot hold",
    )


def test_an_empty_shard(noise):
    shard = stages.represent(waveforms(), TRANSFORM)
    assert shard.contents == shard.features == []
