"""Values against librosa, on real clips.

Both sides compute float32 FFTs of the same frames. What a bin holds is uncertain by about
2^-23 · log2(n_fft) of the frame's energy, and so by more than that of a bin's own value where the
bin is quiet: linear values are compared relative to the clip's maximum, logarithms with a tolerance
that grows as a bin lies below it.
"""

import librosa
import numpy as np
import pytest
import soundfile as sf

from basilar.dsp import representations
from basilar.dsp.compress import Log
from basilar.dsp.cqt import Cqt
from basilar.dsp.cqt import magnitude as cqt_magnitude
from basilar.dsp.framing import Framing
from basilar.dsp.mel import MelBank

CLIPS = [
    "music/sonic-pi-samples__guit_e_fifths.flac",
    "music/pyminiaudio__music.wav",
    "music/data__Karissa_Hobbs_-_Lets_Go_Fishin.ogg",
    "speech/fsdd/7_lucas_12.wav",
]
SIZES = [(2048, 512), (512, 128)]
SPECTRUM = 1e-6  # of the maximum: 2^-23 · log2(2048), rounded down


@pytest.fixture(params=CLIPS)
def clip(corpora, request):
    y, sample_rate = sf.read(
        corpora / request.param, dtype="float32", frames=10 * 44100, always_2d=True
    )
    return np.ascontiguousarray(y[:, 0]), sample_rate


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_stft_and_magnitude(clip, n_fft, hop_length):
    y, _ = clip
    theirs = librosa.stft(y, n_fft=n_fft, hop_length=hop_length).T
    framing = Framing(n_fft, hop_length)
    atol = SPECTRUM * np.abs(theirs).max()
    (ours,) = representations.stft([y], framing=framing)
    assert ours.dtype == np.complex64
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
    (ours,) = representations.spectrum([y], framing=framing, power=1)
    np.testing.assert_allclose(ours, np.abs(theirs), rtol=0, atol=atol)
    (ours,) = representations.spectrum([y], framing=framing, power=2)
    peak = np.abs(theirs).max()
    np.testing.assert_allclose(ours, np.abs(theirs) ** 2, rtol=0, atol=2 * atol * peak)


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_log_magnitude(clip, n_fft, hop_length):
    y, _ = clip
    magnitude = np.abs(librosa.stft(y, n_fft=n_fft, hop_length=hop_length)).T
    log = Log(unit="ln", floor=0.001, floor_mode="add")
    (ours,) = representations.log_spectrum(
        [y], framing=Framing(n_fft, hop_length), power=1, log=log
    )
    # The error of |X| over |X| + floor, and a rounding of values up to 10.
    uncertain = SPECTRUM * magnitude.max() / (magnitude + 0.001) + 1e-6
    assert (np.abs(ours - np.log(magnitude + 0.001)) <= uncertain).all()


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_decibel(clip, n_fft, hop_length):
    y, _ = clip
    theirs = librosa.amplitude_to_db(np.abs(librosa.stft(y, n_fft=n_fft, hop_length=hop_length))).T
    (ours,) = representations.log_spectrum(
        [y], framing=Framing(n_fft, hop_length), power=2, log=Log(top_db=80.0)
    )
    # 80 dB below the maximum, |X| is 1e-4 of it, uncertain by SPECTRUM: 8.7 dB · 1e-2.
    below = 10 ** ((theirs.max() - theirs) / 20)
    assert (np.abs(ours - theirs) <= 8.7 * SPECTRUM * below + 3e-5).all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_mel(clip, n_fft, hop_length, power):
    y, sample_rate = clip
    theirs = librosa.feature.melspectrogram(
        y=y, sr=sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=64, power=power
    ).T
    (ours,) = representations.mel(
        [y],
        sample_rate=sample_rate,
        framing=Framing(n_fft, hop_length),
        bank=MelBank(64),
        power=power,
    )
    # Sums of up to 100 products in float32, in another order than BLAS's.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2 * SPECTRUM * theirs.max())


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
def test_log_mel(clip, n_fft, hop_length):
    y, sample_rate = clip
    mel = librosa.feature.melspectrogram(
        y=y, sr=sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=64
    ).T
    arguments = {
        "sample_rate": sample_rate,
        "framing": Framing(n_fft, hop_length),
        "bank": MelBank(64),
        "power": 2,
    }
    (ours,) = representations.log_mel([y], **arguments, log=Log(top_db=80.0))
    theirs = librosa.power_to_db(mel)
    # |X| of a band 80 dB below the maximum is uncertain by 1e-2 of itself, its power by twice that.
    below = 10 ** ((theirs.max() - theirs) / 20)
    assert (np.abs(ours - theirs) <= 8.7 * SPECTRUM * below + 3e-5).all()
    (in_db,) = representations.log_mel([y], **arguments, log=Log())
    (in_nepers,) = representations.log_mel([y], **arguments, log=Log(unit="ln"))
    np.testing.assert_allclose(in_db, in_nepers * 10 / np.log(10), atol=3e-5)


def test_chroma_of_the_cqt_folds_its_magnitudes(clip):
    y, sample_rate = clip
    bins = Cqt(hop_length=512, fmin=55.0, n_bins=48, bins_per_octave=24)
    (ours,) = representations.chroma_cqt(
        [y], sample_rate=sample_rate, parameters=bins, n_chroma=12, base_c=True, norm="none"
    )
    filters = librosa.filters.cq_to_chroma(48, bins_per_octave=24, fmin=55.0)
    (magnitude,) = cqt_magnitude([y], bins, sample_rate=sample_rate)
    # Sums of four float32.
    np.testing.assert_allclose(ours, magnitude @ filters.T, rtol=3e-7, atol=1e-9)


def test_log_cqt_is_the_decibels_of_its_power(clip):
    y, sample_rate = clip
    bins = Cqt(hop_length=512, fmin=55.0, n_bins=36, bins_per_octave=12)
    (ours,) = representations.log_cqt(
        [y], sample_rate=sample_rate, parameters=bins, log=Log(top_db=80.0)
    )
    (magnitude,) = cqt_magnitude([y], bins, sample_rate=sample_rate)
    theirs = librosa.amplitude_to_db(magnitude)
    np.testing.assert_allclose(ours, theirs, atol=3e-5)  # roundings of values up to 100


def test_top_db_looks_at_each_clip_alone(noise):
    quiet, loud = noise(4000) * np.float32(1e-3), noise(4000)
    quiet[:2000] = 0
    both = representations.log_spectrum(
        [quiet, loud], framing=Framing(512, 128), power=2, log=Log(top_db=30.0)
    )
    for x in both:
        assert x.min() >= x.max() - 30
    assert both[0].min() == both[0].max() - np.float32(30)
    assert both[0].max() < both[1].max() - 50


def test_waveform_is_the_signal(noise):
    y = noise(100)
    (ours,) = representations.waveform([y])
    assert ours.shape == (100, 1)
    assert ours[:, 0].tobytes() == y.tobytes()


def test_seconds_of_the_introduction_give_its_shapes(noise):
    y = noise(110_250)
    framing = Framing(512, 128)
    assert representations.stft([y], framing=framing)[0].shape == (862, 257)
    (mel,) = representations.mel(
        [y], sample_rate=22050, framing=framing, bank=MelBank(128), power=2
    )
    assert mel.shape == (862, 128)


def test_silence_is_the_floor_and_never_nan():
    silence = np.zeros(5000, np.float32)
    log = Log(top_db=80.0)
    (x,) = representations.log_spectrum([silence], framing=Framing(512, 128), power=2, log=log)
    assert (x == -100).all()
