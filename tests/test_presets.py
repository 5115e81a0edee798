"""Presets against what they stand for: the library itself, or its definition in float64.

Errors are relative to the range of the expected values; the bound is the one the README states.
What remains is float32: an FFT's rounding, seen through a logarithm.
"""

import kaldi_native_fbank
import librosa
import numpy as np
import pytest
import soundfile as sf

from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import REPOSITORY

SMALL = 1e-4  # of the range of values


def features(name, y):
    recipe = Recipe.load(REPOSITORY / "params" / f"{name}.toml")
    (x,) = recipe.representation.compute([y], sample_rate=recipe.resample.sample_rate)
    return x


def error(ours, theirs):
    """The largest difference, as a share of the range."""
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.ptp(theirs)


@pytest.fixture(params=["speech", "guitar"])
def clip(request, corpora):
    """A real clip at a given rate: float32 samples."""
    file = {
        "speech": "refs/kaldi_htk/test.wav",
        "guitar": "music/sonic-pi-samples__guit_e_fifths.flac",
    }[request.param]
    y, rate = sf.read(corpora / file, dtype="float32", always_2d=True)

    def at(sample_rate):
        return librosa.resample(
            np.ascontiguousarray(y[:, 0]), orig_sr=rate, target_sr=sample_rate
        ).astype(np.float32)

    return at


def kaldi_frames(computer, y):
    computer.accept_waveform(16000, (y * 32768).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def test_kaldi_fbank(clip):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    y = clip(16000)
    theirs = kaldi_frames(kaldi_native_fbank.OnlineFbank(options), y)
    assert error(features("kaldi_fbank", y), theirs) < SMALL


def test_kaldi_fbank_of_a_signal_with_an_offset(clip):
    """Ten times the signal, of which little is left in its quiet frames: float32 samples themselves
    lose 3e-2 of the range there."""
    y = clip(16000)
    y = (y + np.float32(10 * np.abs(y).max())).astype(np.float32)
    recipe = Recipe.load(REPOSITORY / "params" / "kaldi_fbank.toml")
    framing, bank = recipe.representation.framing, recipe.representation.bank
    frames = framing.frames(y).astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * framing.table[:400], 512)) ** 2
    filters = bank.filters(sample_rate=16000, n_fft=512).toarray().astype(np.float64)
    exact = np.log(np.maximum(power @ filters.T, recipe.representation.floor))
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    theirs = kaldi_frames(kaldi_native_fbank.OnlineFbank(options), y)
    ours = features("kaldi_fbank", y)
    assert error(ours, exact) < 5e-3
    assert error(ours, exact) < error(theirs, exact) / 4


def test_kaldi_mfcc(clip):
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither = 0
    y = clip(16000)
    theirs = kaldi_frames(kaldi_native_fbank.OnlineMfcc(options), y)
    assert error(features("kaldi_mfcc", y), theirs) < SMALL


def test_librosa_mfcc(clip):
    y = clip(22050)
    coefficients = librosa.feature.mfcc(y=y, n_mfcc=20)
    derivatives = [librosa.feature.delta(coefficients, order=order) for order in (1, 2)]
    theirs = np.concatenate([coefficients, *derivatives]).T
    assert error(features("mfcc", y), theirs) < SMALL


def mel_of_torchaudio(y):
    """torchaudio has no build without its large companions here; librosa, set as it is, does."""
    return librosa.feature.melspectrogram(
        y=y,
        sr=16000,
        n_fft=400,
        hop_length=200,
        n_mels=128,
        htk=True,
        norm=None,
        pad_mode="reflect",
    )


@pytest.mark.filterwarnings("ignore:Empty filters")  # torchaudio warns of its defaults as well
def test_torchaudio_mfcc(clip):
    y = clip(16000)
    mel = mel_of_torchaudio(y)
    theirs = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=40, norm="ortho").T
    assert error(features("torchaudio_mfcc", y), theirs) < SMALL


def test_librosa_pcen(clip):
    y = clip(22050)
    mel = librosa.feature.melspectrogram(y=y * np.float32(2**31), power=1)
    theirs = librosa.pcen(mel.astype(np.float64), sr=22050).T
    # The gain lifts quiet bands, which a float32 FFT knows to 1e-3 of themselves (librosa
    # transforms in float64): 2.5e-4 of the range was found.
    assert error(features("pcen", y), theirs) < 5 * SMALL


def test_librosa_chroma(clip):
    y = clip(22050)
    assert error(features("chroma", y), librosa.feature.chroma_stft(y=y, tuning=0.0).T) < SMALL


def test_librosa_statistics(clip):
    y = clip(22050)
    found = features("spectral", y)
    for column, theirs in enumerate(
        [
            librosa.feature.rms(y=y),
            # librosa pads zero crossings with the outermost samples; the recipe pads with zeros.
            librosa.feature.zero_crossing_rate(np.pad(y, 1024), center=False),
            librosa.feature.spectral_centroid(y=y),
            librosa.feature.spectral_rolloff(y=y),
        ]
    ):
        if column == 3:  # a frame whose sum ends at the border of two bins may fall into either
            moved = np.abs(found[:, 3] - theirs[0])
            assert np.count_nonzero(moved > SMALL) <= 1
            assert moved.max() < 1.001 * 22050 / 2048
        else:
            assert error(found[:, [column]], theirs.T) < SMALL, column


@pytest.mark.parametrize("n_mels", [80, 128])
def test_whisper(clip, n_mels):
    from transformers import WhisperFeatureExtractor

    y = clip(16000)
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    found = extractor(y, sampling_rate=16000, return_tensors="np", padding="do_not_pad")
    assert error(features(f"whisper_{n_mels}", y), found["input_features"][0].T) < SMALL


def test_clap(clip):
    pytest.importorskip("torch")
    from transformers import ClapFeatureExtractor

    # As the published checkpoints set it; ten seconds are neither cut nor repeated.
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14000, truncation="rand_trunc")
    y = np.resize(clip(48000), 10 * 48000)
    found = extractor(y, sampling_rate=48000, return_tensors="np")["input_features"]
    assert error(features("clap", y), found[0, 0]) < SMALL


def test_clap_by_its_functions(clip):
    """ClapFeatureExtractor asks for torch; the functions and values it calls them with do not."""
    from transformers import audio_utils

    y = clip(48000)[: 10 * 48000]
    filters = audio_utils.mel_filter_bank(
        num_frequency_bins=513,
        num_mel_filters=64,
        min_frequency=50,
        max_frequency=14000,
        sampling_rate=48000,
        norm="slaney",
        mel_scale="slaney",
    )
    theirs = audio_utils.spectrogram(
        y,
        audio_utils.window_function(1024, "hann"),
        frame_length=1024,
        hop_length=480,
        power=2.0,
        mel_filters=filters,
        log_mel="dB",
    ).T
    assert error(features("clap", y), theirs) < SMALL


def test_librosa_mel(clip):
    y = clip(22050)
    assert error(features("librosa_mel", y), librosa.feature.melspectrogram(y=y).T) < SMALL


def test_musicnn(clip):
    """The extractor's two lines, by librosa."""
    y = clip(16000)
    mel = librosa.feature.melspectrogram(y=y, sr=16000, n_fft=512, hop_length=256, n_mels=96).T
    assert error(features("musicnn", y), np.log10(10000 * mel + 1)) < SMALL


def test_panns(clip):
    """torchlibrosa is librosa's mathematics as convolutions; librosa stands for it."""
    y = clip(32000)
    mel = librosa.feature.melspectrogram(
        y=y,
        sr=32000,
        n_fft=1024,
        hop_length=320,
        n_mels=64,
        fmin=50,
        fmax=14000,
        pad_mode="reflect",
    ).T
    assert error(features("panns", y), librosa.power_to_db(mel, top_db=None)) < SMALL


@pytest.mark.filterwarnings("ignore:Empty filters")  # torchaudio warns of its defaults as well
def test_torchaudio_mel(clip):
    y = clip(16000)
    assert error(features("torchaudio_mel", y), mel_of_torchaudio(y).T) < SMALL


def mel_of(hz):
    return 1127.0 * np.log(1 + hz / 700.0)


def triangles_over_mel(n_mels, fmin, fmax, sample_rate, n_fft):
    """The definition of Kaldi's and VGGish's filters, one weight at a time."""
    points = np.linspace(mel_of(fmin), mel_of(fmax), n_mels + 2)
    bank = np.zeros((n_mels, n_fft // 2 + 1))
    for m in range(n_mels):
        left, centre, right = points[m : m + 3]
        for k in range(n_fft // 2 + 1):
            mel = mel_of(k * sample_rate / n_fft)
            weight = min((mel - left) / (centre - left), (right - mel) / (right - centre))
            bank[m, k] = max(weight, 0)
    return bank


def framed(y, length, hop_length):
    count = 1 + (len(y) - length) // hop_length
    return np.stack([y[i * hop_length :][:length] for i in range(count)]).astype(np.float64)


def test_vggish_by_its_definition(clip):
    y = clip(16000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    magnitude = np.abs(np.fft.rfft(framed(y, 400, 160) * window, 512))
    theirs = np.log(magnitude @ triangles_over_mel(64, 125, 7500, 16000, 512).T + 0.01)
    assert error(features("vggish", y), theirs) < SMALL


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero")  # AST's has
def test_ast(clip):
    pytest.importorskip("torch")
    from transformers import ASTFeatureExtractor

    y = clip(16000)
    ours = features("ast", y)
    extractor = ASTFeatureExtractor(max_length=len(ours))
    found = extractor(y, sampling_rate=16000, return_tensors="np")["input_values"]
    assert error(ours, found[0]) < SMALL


def test_ast_by_its_definition(clip):
    y = clip(16000)
    frames = framed(y, 400, 160)
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    mel = power @ triangles_over_mel(128, 20, 8000, 16000, 512).T
    floor = np.finfo(np.float32).eps
    theirs = (np.log(np.maximum(mel, floor)) + 4.2677393) / (2 * 4.5689974)
    assert error(features("ast", y), theirs) < SMALL


@pytest.mark.parametrize(("number", "fmin"), [(1, 0.0)])
def test_htk_filter_bank(corpora, number, fmin):
    """HTK's own output file: 23 bands, Hamming window, nothing else."""
    folder = corpora / "refs" / "kaldi_htk"
    data = (folder / f"test.wav.fbank_htk.{number}").read_bytes()
    theirs = np.frombuffer(data[12:], ">f4").reshape(-1, 23).astype(np.float32)
    y, _ = sf.read(folder / "test.wav", dtype="float32")
    recipe = Recipe.load(REPOSITORY / "params" / "kaldi_fbank.toml")
    htk = {"window": "hamming", "remove_dc": False, "preemphasis": 0.0, "n_mels": 23, "fmin": fmin}
    kind = recipe.representation.model_copy(update=htk)
    (ours,) = kind.compute([y], sample_rate=16000)
    assert error(ours, theirs) < SMALL
