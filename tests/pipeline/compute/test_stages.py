import contextlib
import ctypes
import errno
import faulthandler
import mmap
import os
import shutil
import signal
import time
from functools import partial

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.dsp import buffers, resample, streaming
from basilar.pipeline import audio
from basilar.pipeline.audio import decoding
from basilar.pipeline.compute import stages
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import read_waveforms, write_waveforms
from basilar.pipeline.errors import ChangedAudioError, ManifestError
from basilar.pipeline.hashing import values_hash
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import scratch
from basilar.pipeline.storage.retry import ATTEMPTS, retrying
from tests.conftest import REPOSITORY
from tests.damage import flip
from tests.pipeline.audio.test_decoding import expectations
from tests.waveforms import waveforms

RECIPE = Recipe.from_dict(
    {"resample": {"sample_rate": 8000}, "representation": {"kind": "log_mel", "n_fft": 512}}
)
TRANSFORM = Transform(RECIPE)
PARAMS = sorted((REPOSITORY / "params").glob("*.toml"))


def at_rate(sample_rate, method="sinc_kaiser"):
    return Transform.from_recipe(
        {
            "resample": {"sample_rate": sample_rate, "method": method},
            "representation": {"kind": "log_mel"},
        }
    )


def sources(folder):
    (shard,) = Plan(RECIPE, scan(folder)).shards
    return shard.sources


def test_decoding_a_shard(audio_folder):
    clips = sources(audio_folder)
    decoded = stages.decode(clips, TRANSFORM, root=audio_folder)
    assert decoded.contents == [clip.content for clip in clips]
    assert len(decoded.contents) == 11  # twelve files, two of them equal
    for clip, y, made in zip(clips, decoded.signals, decoded.clips, strict=True):
        expected, _ = sf.read(audio_folder / clip.path, dtype="float32")
        np.testing.assert_array_equal(y, expected)
        assert (made.sample_rate, made.source_rate) == (8000, 8000)
        assert made.source_samples == made.span.samples == len(expected)
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
    with pytest.raises(ChangedAudioError, match=r"00\.wav: it has changed since it was scanned"):
        stages.decode(clips, TRANSFORM, root=audio_folder)
    (audio_folder / "a" / "00.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"00\.wav"):
        stages.decode(clips, TRANSFORM, root=audio_folder)


@pytest.mark.parametrize("reason", [None, "corrupt"])
def test_a_file_that_changes_while_it_is_decoded_is_an_error(audio_folder, monkeypatch, reason):
    (clip,) = (clip for clip in sources(audio_folder) if clip.path == "a/00.wav")
    decode_blocks = Transform.decode_blocks

    def changing(self, file, **excerpt):
        yield from decode_blocks(self, file, **excerpt)
        status = file.stat()
        flip(file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        if reason:
            raise audio.AudioError(reason, "read half of each version")

    monkeypatch.setattr(Transform, "decode_blocks", changing)
    with pytest.raises(ChangedAudioError, match=r"00\.wav: it has changed since it was scanned"):
        stages.decode([clip], TRANSFORM, root=audio_folder)


def test_a_path_that_leaves_the_root_is_not_opened(audio_folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ManifestError, match="leads out of the root"):
        stages.decode([Source("x", "../secret", "x")], TRANSFORM, root=audio_folder)
    (audio_folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestError, match="leads out of the root"):
        stages.decode([Source("x", "link", "x")], TRANSFORM, root=audio_folder)


def test_resampling_a_shard(noise):
    before = waveforms(noise(8000), noise(4000, 1))
    before.quarantined.append(Quarantined("q", "decode", "corrupt", "m"))
    after = stages.resample(before, at_rate(16000))
    assert [y.size for y in after.signals] == [16000, 8000]
    assert [clip.sample_rate for clip in after.clips] == [16000, 16000]
    assert [clip.source_rate for clip in after.clips] == [8000, 8000]
    assert [clip.source_samples for clip in after.clips] == [8000, 4000]
    assert [clip.checksums[:2] for clip in after.clips] == [c.checksums for c in before.clips]
    assert after.quarantined == before.quarantined


def test_a_clip_that_resampling_leaves_nothing_of_is_quarantined(noise):
    clips = waveforms(noise(1), noise(8000), sample_rate=192_000)
    after = stages.resample(clips, at_rate(8000, "soxr"))  # the others leave a sample
    assert len(after.clips) == 1
    (lost,) = after.quarantined
    assert (lost.stage, lost.reason) == ("resample", "empty")
    assert lost.message == "1 samples at 192000 Hz leave none at 8000 Hz"


def represented(clips, transform, **where):
    """What represent returns, and the features that it puts."""
    features = []
    return stages.represent(clips, transform, features.append, **where), features


def test_representing_a_shard(noise):
    clips = waveforms(noise(8000), noise(100, 1))
    shard, features = represented(clips, TRANSFORM)
    assert [x.shape for x in features] == [(16, 128), (1, 128)]
    for x, moments, clip in zip(features, shard.moments, shard.clips, strict=True):
        assert x.dtype == np.float32
        assert clip.values_sha256 == values_hash(x)
        np.testing.assert_allclose(moments[0], (x.astype(float) + 100).sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(moments[2:], [x.min(axis=0), x.max(axis=0)])


def test_a_clip_has_the_same_values_alone_and_in_a_shard(noise):
    signals = [noise(n, n) for n in (8000, 300, 5001, 17, 40_000)]
    together = stages.represent(waveforms(*signals), TRANSFORM)
    for y, clip in zip(signals, together.clips, strict=True):
        (alone,) = stages.represent(waveforms(y), TRANSFORM).clips
        assert alone.values_sha256 == clip.values_sha256


def test_clips_shorter_than_a_frame_are_quarantined(noise):
    transform = Transform.from_recipe(
        {"representation": {"kind": "mel", "n_fft": 512, "center": False}}
    )
    shard = stages.represent(waveforms(noise(511), noise(512)), transform)
    assert len(shard.clips) == 1
    (lost,) = shard.quarantined
    assert lost[1:] == ("representation", "empty", "511 samples are less than one frame of the mel")


def test_values_that_the_stored_type_cannot_hold_are_quarantined(noise):
    transform = Transform.from_recipe({"representation": {"kind": "mel", "dtype": "float16"}})
    loud = np.full(4000, 1e3, np.float32)
    shard, features = represented(waveforms(loud, noise(4000)), transform)
    assert [x.dtype for x in features] == [np.float16]
    assert len(shard.moments) == 1
    (lost,) = shard.quarantined
    assert (lost.reason, lost.message) == (
        "too_loud_or_nan",
        "the mel has values that float16 cannot hold",
    )


def test_an_empty_shard(noise):
    shard, features = represented(waveforms(), TRANSFORM)
    assert shard.clips == features == []
    assert shard.moments.shape == (0, 4, 128)


@contextlib.contextmanager
def sliced():
    """Let all that is done in slices be done in tiny ones, and all arrays lie in files."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streaming, "_SPAN", 4096)
        patched.setattr(resample, "_BLOCK", 1000)
        patched.setattr(buffers, "_VALUES", 777)
        patched.setattr(buffers, "_SAMPLES", 5000)
        patched.setattr(scratch, "IN_MEMORY", 0)
        patched.setattr(decoding, "_BLOCK", 999)
        yield


def everything(sources, transform, root, folder):
    """What the three stages make of clips, with artifacts between them."""
    made = None
    for stage in ("decode", "resample"):
        shutil.rmtree(folder / stage, ignore_errors=True)
        if made is None:
            make = partial(stages.decode, sources, transform, root=root)
        else:
            make = partial(stages.resample, made, transform)
        write_waveforms(folder / stage, lambda spool, make=make: make(spool=spool))
        made = read_waveforms(folder / stage)
    return represented(made, transform, folder=folder)


def bits_of(made, features):
    found = [x.tobytes() for x in (*features, made.moments)]
    return found, made.clips, made.quarantined


@pytest.mark.slow
@pytest.mark.parametrize("file", PARAMS, ids=lambda file: file.stem)
def test_slices_of_long_clips_have_the_bits_of_the_whole(file, tmp_path, noise):
    for i, n_samples in enumerate((30_011, 100, 9_000)):
        loudness = np.linspace(0, 1, n_samples, dtype=np.float32)
        sf.write(tmp_path / f"{i}.wav", noise(n_samples, i) * loudness, 44100, subtype="PCM_16")
    clips, transform = sources(tmp_path), Transform.from_recipe(file)
    whole = everything(clips, transform, tmp_path, tmp_path / "scratch")
    with sliced():
        parts = everything(clips, transform, tmp_path, tmp_path / "scratch")
        at_once = stages.decode(clips, transform, root=tmp_path, resampled=True)
        at_once = represented(at_once, transform, folder=tmp_path)
    assert bits_of(*parts) == bits_of(*at_once) == bits_of(*whole)
    assert all(isinstance(base(x), mmap.mmap) for x in parts[1])
    assert not any(isinstance(base(x), mmap.mmap) for x in whole[1])


def base(x):
    """What an array's memory belongs to."""
    while isinstance(x, np.ndarray) and x.base is not None:
        x = x.base
    return x.obj if isinstance(x, memoryview) else x


@pytest.mark.parametrize("name", ["log_mel", "kaldi_mfcc", "pcen", "log_cqt", "torchaudio_mfcc"])
@settings(max_examples=12)
@given(spans=st.integers(1, 3), beyond=st.integers(-600, 600))
def test_any_length_around_a_border_has_the_bits_of_the_whole(name, spans, beyond):
    transform = Transform.from_recipe(REPOSITORY / "params" / f"{name}.toml")
    rng = np.random.default_rng(0)
    y = (0.1 * rng.standard_normal(4096 * spans + beyond)).astype(np.float32)
    whole = bits_of(*represented(waveforms(y), transform))
    with sliced():
        assert bits_of(*represented(waveforms(y), transform)) == whole


def test_conventions_that_no_shipped_recipe_has_are_sliced_alike(noise):
    log = {"kind": "log_mel", "reference": "max", "subtract_mean": True, "dither": 1e-4}
    mfcc = {"kind": "mfcc", "n_deltas": 2, "delta_mode": "nearest", "energy": True, "top_db": 60.0}
    for table in ({**log, "dtype": "float16"}, mfcc, {**mfcc, "delta_mode": "interp"}):
        transform = Transform.from_recipe(
            {"resample": {"sample_rate": 8000}, "representation": {"n_fft": 512, **table}}
        )
        clips = waveforms(noise(40_000), noise(9000, 1))
        whole = bits_of(*represented(clips, transform))
        with sliced():
            assert bits_of(*represented(clips, transform)) == whole


def deadly(monkeypatch, name, act):
    """Let the decoder do something to the process when it reads the file of a name."""
    original = audio.decode_blocks

    def decode(path, **options):
        if path.name == name:
            faulthandler.disable()  # pytest's: it would print where
            act(path)
        return original(path, **options)

    monkeypatch.setattr(audio, "decode_blocks", decode)


def content_of(folder, path):
    return next(clip.content for clip in sources(folder) if clip.path == path)


def test_a_clip_that_kills_the_decoder_is_quarantined(audio_folder, monkeypatch):
    deadly(monkeypatch, "05.wav", lambda _: ctypes.string_at(0))
    decoded = stages.decode(sources(audio_folder), TRANSFORM, root=audio_folder)
    message = (
        "the decoder died of signal 11 (SIGSEGV), twice; to try again, delete the feature set and "
        "build again"
    )
    assert decoded.quarantined == [
        Quarantined(content_of(audio_folder, "c/05.wav"), "decode", "crashed", message)
    ]
    monkeypatch.undo()
    others = [clip for clip in sources(audio_folder) if clip.path != "c/05.wav"]
    alone = stages.decode(others, TRANSFORM, root=audio_folder)
    assert decoded.contents == alone.contents
    assert [c.checksums for c in decoded.clips] == [c.checksums for c in alone.clips]
    for y, expected in zip(decoded.signals, alone.signals, strict=True):
        np.testing.assert_array_equal(y, expected, strict=True)


def test_a_clip_that_never_ends_is_quarantined(audio_folder, monkeypatch):
    deadly(monkeypatch, "05.wav", lambda _: time.sleep(3600))
    decoded = stages.decode(sources(audio_folder), TRANSFORM, root=audio_folder, timeout=1.0)
    (lost,) = decoded.quarantined
    assert lost.reason == "timeout"
    assert lost.message == (
        "decoding took longer than 1 s, twice; to try again, delete the feature set and build "
        "again with a longer --clip-timeout"
    )
    assert len(decoded.contents) == 10


def test_a_file_that_changes_and_kills_the_decoder_is_a_changed_file(
    audio_folder, monkeypatch, tmp_path
):
    def shrink_and_die(path):
        if (tmp_path / "tried").exists():  # the second child, too, had found it unchanged
            os.truncate(path, 100)
        (tmp_path / "tried").touch()
        os.kill(os.getpid(), signal.SIGBUS)

    deadly(monkeypatch, "05.wav", shrink_and_die)
    with pytest.raises(ChangedAudioError, match=r"05\.wav: it has changed since it was scanned"):
        stages.decode(sources(audio_folder), TRANSFORM, root=audio_folder)


@pytest.mark.parametrize("failures", [4, 5])
def test_a_disk_that_fails_for_a_moment_is_read_again(
    audio_folder, monkeypatch, tmp_path, failures
):
    calls = tmp_path / "calls"
    calls.touch()

    def fail(path):
        with calls.open("a") as file:
            file.write("x")
        if len(calls.read_text()) <= failures:
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(path))

    monkeypatch.setattr(stages, "retrying", partial(retrying, first_wait=0.001))
    deadly(monkeypatch, "05.wav", fail)
    if failures < ATTEMPTS:
        decoded = stages.decode(sources(audio_folder), TRANSFORM, root=audio_folder)
        assert (len(decoded.contents), decoded.quarantined) == (11, [])
    else:
        with pytest.raises(OSError, match=r"05\.wav") as caught:
            stages.decode(sources(audio_folder), TRANSFORM, root=audio_folder)
        assert caught.value.errno == errno.EIO
    assert len(calls.read_text()) == min(failures + 1, ATTEMPTS)


def test_caps_of_the_recipe_quarantine(audio_folder):
    sf.write(audio_folder / "stereo.wav", np.zeros((2400, 2), np.float32), 8000, subtype="PCM_16")
    capped = {"max_seconds": 0.8, "max_channels": 1}
    recipe = {"decode": capped, "representation": {"kind": "log_mel"}}
    clips = sources(audio_folder)
    decoded = stages.decode(clips, Transform.from_recipe(recipe), root=audio_folder)
    paths = {clip.content: clip.path for clip in clips}
    lost = {paths[entry.content]: (entry.reason, entry.message) for entry in decoded.quarantined}
    assert lost == {
        "c/11.wav": ("too_long", "longer than 6400 samples: take excerpts or raise the limits"),
        "stereo.wav": ("unsupported", "2 channels; the limit is 1"),
    }


def test_all_awkward_files_have_their_outcome_in_a_child(corpora):
    """A scan and a decode of the whole folder: what each comes to in this process, and no other."""
    root = corpora / "awkward"
    table = expectations(root / "outcomes.csv")
    expected = {row["file"].removeprefix("awkward/"): row for row in table}
    manifest = scan(root)
    assert len(expected) == 129
    problems = dict(zip(manifest.column("path"), manifest.column("problem"), strict=True))
    assert problems.keys() | set(manifest.not_audio) == expected.keys() | {"outcomes.csv"}
    clips = [clip for shard in Plan(RECIPE, manifest).shards for clip in shard.sources]
    decoded = stages.decode(clips, TRANSFORM, root=root, timeout=60)
    paths = {clip.content: clip.path for clip in clips}
    assert sorted([*decoded.contents, *(q.content for q in decoded.quarantined)]) == sorted(paths)
    for content, y in zip(decoded.contents, decoded.signals, strict=True):
        assert expected[paths[content]]["expected"].startswith("decode")
        assert problems[paths[content]] is None
        np.testing.assert_array_equal(y, audio.decode(root / paths[content])[0], strict=True)
    for lost in decoded.quarantined:
        with pytest.raises(audio.AudioError) as caught:
            audio.decode(root / paths[lost.content])
        assert (lost.reason, lost.message) == (caught.value.reason, caught.value.message)
        said = expected[paths[lost.content]]["expected"]
        allowed = {"reject", "reject_or_flag", "decode_or_flag", "decode_documented", lost.reason}
        assert said in allowed
