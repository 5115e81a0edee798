from typing import get_args

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar import Transform
from basilar.dsp.dither import dither
from basilar.dsp.resample import Method, resample
from basilar.pipeline.audio import AudioError, Limits
from basilar.pipeline.errors import RecipeError
from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import REPOSITORY

PARAMS = sorted((REPOSITORY / "params").glob("*.toml"))
STREAMED = [file for file in PARAMS if Recipe.load(file).representation.is_framewise]


def noise(n_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize("file", PARAMS, ids=lambda file: file.stem)
def test_every_shipped_recipe_transforms_a_file_as_its_samples(file, tmp_path):
    transform = Transform.from_recipe(file)
    y = noise(40_000)
    sf.write(tmp_path / "clip.wav", y, 44100, subtype="FLOAT")
    x = transform.apply(y, sample_rate=44100)
    kind = transform.recipe.representation
    assert x.dtype == kind.stored_dtype()
    assert x.shape[1] == kind.columns()
    assert transform.apply_file(tmp_path / "clip.wav").tobytes() == x.tobytes()


@pytest.mark.parametrize("file", STREAMED, ids=lambda file: file.stem)
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), source_rate=st.sampled_from([8000, 22050, 44100]))
def test_any_pieces_give_the_bits_of_the_whole(file, seed, source_rate):
    transform = Transform.from_recipe(file)
    rng = np.random.default_rng(seed)
    y = noise(int(rng.integers(3000, 20_000)), seed)
    cuts = np.sort(rng.integers(0, y.size, size=int(rng.integers(0, 30))))
    stream = transform.stream(source_rate)
    parts = [*(stream.push(piece) for piece in np.split(y, cuts)), stream.finish()]
    whole = transform.apply(y, sample_rate=source_rate)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_one_sample_at_a_time():
    transform = Transform.from_recipe(REPOSITORY / "params" / "kaldi_fbank.toml")
    y = noise(2000)
    stream = transform.stream(16000)
    parts = [*(stream.push(y[i : i + 1]) for i in range(y.size)), stream.finish()]
    assert sum(map(len, parts[:-1])) >= 10
    assert np.concatenate(parts).tobytes() == transform.apply(y, sample_rate=16000).tobytes()


def test_what_needs_the_whole_clip_is_not_streamed():
    transform = Transform.from_recipe(REPOSITORY / "params" / "log_mel.toml")
    with pytest.raises(
        ValueError, match=r"this log_mel cannot be streamed: its frames depend on others \(top_db"
    ):
        transform.stream(22050)


def test_channels_are_the_recipes():
    stereo = np.stack([noise(5000), noise(5000, 1)], axis=1)
    for channels, expected in (
        ("mean", (stereo[:, 0] + stereo[:, 1]) * np.float32(0.5)),
        ("first", stereo[:, 0]),
        (1, stereo[:, 1]),
    ):
        transform = Transform.from_recipe(
            {"decode": {"channels": channels}, "representation": {"kind": "waveform"}}
        )
        x = transform.apply(stereo, sample_rate=22050)
        np.testing.assert_array_equal(x[:, 0], expected)


def test_recipes_in_every_form():
    recipe = Recipe.from_dict({"representation": {"kind": "mel"}})
    assert Transform.from_recipe(recipe).recipe is recipe
    assert Transform.from_recipe({"representation": {"kind": "mel"}}).recipe == recipe
    with pytest.raises(RecipeError, match="representation is missing"):
        Transform.from_recipe({})


def test_wrong_signals_are_refused():
    transform = Transform.from_recipe({"representation": {"kind": "mel", "center": False}})
    with pytest.raises(ValueError, match="100 samples at 8000 Hz are less than one frame"):
        transform.apply(noise(100), sample_rate=8000)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\) is neither \(samples,\) nor"):
        transform.apply(np.zeros((2, 2, 2), np.float32), sample_rate=8000)
    with pytest.raises(ValueError, match=r"shape \(2, 8000\) .*of \(channels, samples\) pass y\.T"):
        transform.apply(np.zeros((2, 8000), np.float32), sample_rate=8000)
    deltas = Transform.from_recipe(REPOSITORY / "params" / "mfcc.toml")
    with pytest.raises(ValueError, match=r"4000 samples .* are fewer than delta_width = 9 frames"):
        deltas.apply(noise(4000), sample_rate=22050)


@pytest.mark.parametrize(
    ("y", "problem"),
    [
        (np.zeros(8000, np.int16), "samples are int16; pass floats of full scale 1"),
        (np.array([*[0.0] * 7999, np.nan]), "sample 7999 is nan"),
        (np.array([[0.0, 0.0], [0.0, -np.inf]]), "sample 1 is -inf"),
        (np.full(8000, 2.0**51), r"sample 0 is .*at most 2\^50"),
    ],
)
def test_samples_that_no_file_gives_are_refused(y, problem):
    transform = Transform.from_recipe(REPOSITORY / "params" / "kaldi_fbank.toml")
    with pytest.raises(ValueError, match=problem):
        transform.apply(y, sample_rate=16000)
    with pytest.raises(ValueError, match=problem):
        transform.stream(16000).push(y if y.ndim == 1 else y[:, 1])


def test_a_signal_of_nothing_is_less_than_a_frame():
    transform = Transform.from_recipe({"representation": {"kind": "mel", "center": False}})
    with pytest.raises(ValueError, match="0 samples at 8000 Hz are less than one frame"):
        transform.apply(np.zeros(0, np.float32), sample_rate=8000)


def test_the_signal_is_not_changed():
    y = noise(5000)
    before = y.copy()
    for name in ("kaldi_fbank", "waveform", "log_mel"):
        transform = Transform.from_recipe(REPOSITORY / "params" / f"{name}.toml")
        transform.apply(y, sample_rate=transform.sample_rate)
    np.testing.assert_array_equal(y, before)


def test_dither_is_the_same_noise_every_time():
    table = {"kind": "log_mel", "n_fft": 512, "hop_length": 160, "scale": 32768.0}
    plain, noisy = (
        Transform.from_recipe({"representation": {**table, "dither": amount}})
        for amount in (0.0, 1.0)
    )
    silence = np.zeros(8000, np.float32)
    assert plain.apply(silence, sample_rate=22050).max() == -100
    dithered = noisy.apply(silence, sample_rate=22050)
    assert dithered.min() > -100
    assert dithered.tobytes() == noisy.apply(silence, sample_rate=22050).tobytes()
    together = noisy.represent([noise(500), silence])
    assert together[1].tobytes() == dithered.tobytes()
    assert plain.recipe.representation.is_framewise
    with pytest.raises(ValueError, match="cannot be streamed"):
        noisy.stream(22050)


@pytest.mark.parametrize(("amount", "scale"), [(1.0, 32768.0), (3.0, 32768.0), (0.25, 1.0)])
def test_dither_is_in_the_unit_of_the_scaled_samples(amount, scale):
    table = {"kind": "power", "n_fft": 512, "hop_length": 160, "scale": scale}
    plain, noisy = (
        Transform.from_recipe({"representation": {**table, "dither": amount}})
        for amount in (0.0, amount)
    )
    y = noise(8000)
    (expected,) = plain.represent([dither(y, amplitude=amount / scale)])
    assert noisy.represent([y])[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("method", get_args(Method))
def test_every_resampler_streams(method):
    transform = Transform.from_recipe(
        {"resample": {"method": method}, "representation": {"kind": "waveform"}}
    )
    y = noise(5000)
    expected = resample(y, source_rate=8000, sample_rate=22050, method=method)
    assert transform.apply(y, sample_rate=8000)[:, 0].tobytes() == expected.tobytes()
    stream = transform.stream(8000)
    pieces = [stream.push(y[:777]), stream.push(y[777:4000]), stream.push(y[4000:])]
    streamed = np.concatenate([*pieces, stream.finish()])
    assert streamed[:, 0].tobytes() == expected.tobytes()


def test_files_may_be_held_to_lower_limits_than_the_recipes_and_to_no_higher(tmp_path):
    sf.write(tmp_path / "two.wav", np.zeros((8000, 2)), 8000)
    for most, limits in ((1, Limits()), (2, Limits(max_channels=1))):
        table = {"decode": {"max_channels": most}, "representation": {"kind": "mel"}}
        transform = Transform.from_recipe(table)
        with pytest.raises(AudioError, match="2 channels; the limit is 1"):
            transform.apply_file(tmp_path / "two.wav", limits=limits)
    long = {"decode": {"max_seconds": 100_000.0}, "representation": {"kind": "mel"}}
    said = Transform.from_recipe(long)._decoding(None, None)["limits"]
    assert said.max_seconds == 100_000.0
