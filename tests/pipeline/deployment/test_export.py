import json

import numpy as np
import pytest
import soundfile as sf

from basilar import Bundle, FeatureSet
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.errors import BundleError, ChangedAudioError
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.recipes.recipe import Recipe
from tests.pipeline.store.test_publish import LOG_MEL, SMALL, publish

STANDARD = {"kind": "standard", "split": "all"}


def make_set(folder, audio_folder, representation=LOG_MEL, normalization=STANDARD, **decode):
    """A feature set at 16 kHz of clips at 8 kHz, and its manifest."""
    recipe = Recipe.from_dict(
        {
            "decode": decode,
            "resample": {"sample_rate": 16000},
            "representation": representation,
            "normalization": normalization,
            "store": SMALL,
        }
    )
    plan, path = publish(folder, audio_folder, recipe)
    return FeatureSet.open(path), plan.manifest


@pytest.fixture
def published(tmp_path, audio_folder):
    return make_set(tmp_path / "root", audio_folder)


def test_what_is_in_a_bundle(published, tmp_path):
    fs, manifest = published
    write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=2)
    index = json.loads((tmp_path / "bundle" / "bundle.json").read_bytes())
    assert (index["key"], index["digest"]) == (fs.key, fs.digest)
    assert index["recipe"] == fs.recipe
    assert index["labels"] == fs.labels == ["a", "b", "c"]
    assert [vector["name"] for vector in index["vectors"]] == [
        *("canary at 44100 Hz", "canary at 48000 Hz", "canary at 16000 Hz", "canary as a file"),
        *(f"clip {name}" for name in fs.clips["id"][:2]),
    ]
    files = {p.relative_to(tmp_path / "bundle").as_posix() for p in tmp_path.glob("bundle/**/*.*")}
    assert files == index["files"].keys() | {"bundle.json"}
    assert {name.rpartition(".")[2] for name in files} == {"json", "npy", "flac", "md"}
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert fs.key in text
    assert "`(x - centre) / scale`, float32: standard normalization" in text
    assert "{" not in text


def test_golden_clips_are_what_is_stored(published, tmp_path, audio_folder):
    fs, manifest = published
    write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=1)
    golden = tmp_path / "bundle" / "golden"
    stored = np.load(golden / "clip_0.npy.features.npy", allow_pickle=False)
    assert stored.tobytes() == fs.normalize(fs[0]).tobytes()
    samples, _ = sf.read(audio_folder / fs.clips["id"][0], dtype="float32")
    assert np.load(golden / "clip_0.npy", allow_pickle=False).tobytes() == samples.tobytes()


def test_two_bundles_of_one_set_are_equal(published, tmp_path):
    fs, manifest = published
    for name in ("one", "two"):
        write_bundle(tmp_path / name, fs, manifest=manifest, clips=1)
    one, two = ((tmp_path / name / "bundle.json").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_long_clip_is_taken_only_if_there_is_no_other(tmp_path, noise):
    audio = tmp_path / "audio"
    audio.mkdir()
    for i, seconds in enumerate([35, 1, 40, 2]):
        sf.write(audio / f"{i}.wav", noise(8000 * seconds, i), 8000, subtype="PCM_16")
    fs, manifest = make_set(tmp_path / "root", audio)
    write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=3)
    names = [vector.name for vector in Bundle.load(tmp_path / "bundle").index.vectors[4:]]
    assert sorted(names[:2]) == ["clip 1.wav", "clip 3.wav"]
    assert names[2] == "clip 0.wav"


def test_audio_that_is_gone_or_changed(published, tmp_path, audio_folder):
    fs, manifest = published
    file = audio_folder / fs.clips["id"][0]
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    with pytest.raises(ChangedAudioError, match="has changed since it was scanned"):
        write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=1)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=file.name):
        write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=1)
    write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=0)
    assert {path.name for path in tmp_path.iterdir()} == {"audio", "root", "bundle"}


def test_a_folder_that_is_there_is_left_alone(published, tmp_path):
    fs, manifest = published
    with pytest.raises(FileExistsError, match="there already; name another folder, or delete it"):
        write_bundle(tmp_path / "audio", fs, manifest=manifest, clips=0)


def test_features_that_are_not_computed_here_give_no_bundle(published, tmp_path, audio_folder):
    """A store of which another function made the values."""
    fs, _ = published
    other, _ = make_set(tmp_path / "other", audio_folder, {**LOG_MEL, "fmin": 50.0})
    fs.attributes["recipe"] = other.recipe
    with pytest.raises(BundleError, match=r"clip .*: what is stored and what is computed here dif"):
        write_bundle(tmp_path / "bundle", fs, manifest=scan(audio_folder), clips=1)
    assert not (tmp_path / "bundle").exists()


def test_recipes_of_few_frames_have_longer_canaries(tmp_path, audio_folder):
    mfcc = {"kind": "mfcc", "n_deltas": 1, "n_fft": 256, "hop_length": 2500, "delta_width": 3}
    fs, manifest = make_set(tmp_path / "root", audio_folder, mfcc)
    write_bundle(tmp_path / "bundle", fs, manifest=manifest, clips=0)
    assert all(golden.identical for golden in Bundle.load(tmp_path / "bundle").check())
