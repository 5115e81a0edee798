import librosa
import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.mel import MelBank, hz_to_mel, mel_to_hz


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_scales_equal_librosa(mel_scale):
    hz = np.linspace(0, 20_000, 1001)
    theirs = librosa.hz_to_mel(hz, htk=mel_scale == "htk")
    np.testing.assert_allclose(hz_to_mel(hz, mel_scale=mel_scale), theirs, rtol=1e-13, atol=1e-13)


@given(st.floats(0, 100_000), st.sampled_from(["slaney", "htk"]))
def test_scales_can_be_inverted(hz, mel_scale):
    there_and_back = mel_to_hz(hz_to_mel(hz, mel_scale=mel_scale), mel_scale=mel_scale)
    np.testing.assert_allclose(there_and_back, hz, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize("filter_norm", ["slaney", "none"])
@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "fmin", "fmax"),
    [(22050, 2048, 128, 0.0, None), (16000, 400, 80, 0.0, 8000.0), (32000, 1024, 64, 50.0, 14e3)],
)
def test_filters_equal_librosa(mel_scale, filter_norm, sample_rate, n_fft, n_mels, fmin, fmax):
    bank = MelBank(n_mels, fmin, fmax, mel_scale, filter_norm)
    theirs = librosa.filters.mel(
        sr=sample_rate,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        htk=mel_scale == "htk",
        norm="slaney" if filter_norm == "slaney" else None,
        dtype=np.float64,
    )
    ours = bank.filters(sample_rate=sample_rate, n_fft=n_fft).toarray()
    # Ours are rounded to float32: half an ulp of the largest weight.
    np.testing.assert_allclose(ours, theirs, atol=6e-8 * theirs.max())


def test_filters_equal_whispers(corpora):
    with np.load(corpora / "refs" / "whisper" / "mel_filters.npz", allow_pickle=False) as theirs:
        for n_mels in (80, 128):
            ours = MelBank(n_mels).filters(sample_rate=16000, n_fft=400).toarray()
            # Both are float32 of weights up to 0.05: half an ulp is 2e-9.
            np.testing.assert_allclose(ours, theirs[f"mel_{n_mels}"], atol=2e-9)


def test_filters_equal_the_auditory_toolbox(corpora):
    files = sorted((corpora / "refs" / "librosa").glob("feature-melfb-*.mat"))
    compared = 0
    for file in files:
        given = scipy.io.loadmat(file)
        one = {name: given[name].item() for name in ("sr", "nfft", "nfilts", "fmin", "fmax", "htk")}
        if one["sr"] / 2 < one["fmax"]:
            continue
        scale, norm = ("htk", "none") if one["htk"] else ("slaney", "slaney")
        bank = MelBank(int(one["nfilts"]), float(one["fmin"]), float(one["fmax"]), scale, norm)
        ours = bank.filters(sample_rate=int(one["sr"]), n_fft=int(one["nfft"])).toarray()
        theirs = given["wts"][:, : ours.shape[1]]
        np.testing.assert_allclose(ours, theirs, atol=6e-8 * max(theirs.max(), 1e-9))
        compared += 1
    assert compared > 0


def test_unit_height_filters_sum_to_one_between_the_outer_points():
    bank = MelBank(40, filter_norm="none").filters(sample_rate=16000, n_fft=2048).toarray()
    points = mel_to_hz(np.linspace(0, hz_to_mel(8000, mel_scale="slaney"), 42), mel_scale="slaney")
    bins = np.arange(1025) * 16000 / 2048
    inner = (bins >= points[1]) & (bins <= points[-2])
    np.testing.assert_allclose(bank.sum(axis=0)[inner], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        (MelBank(40, fmax=9000.0), "0.0 to 9000.0 Hz must lie within 0 to 8000.0 Hz"),
        (MelBank(40, fmin=4000.0, fmax=4000.0), "4000.0 to 4000.0 Hz"),
        (MelBank(40, mel_scale="bark"), "'bark' is not one of slaney, htk"),
        (MelBank(40, filter_norm="area"), "'area' is not one of slaney, none"),
    ],
)
def test_impossible_banks_are_refused(bank, message):
    with pytest.raises(ValueError, match=message):
        bank.filters(sample_rate=16000, n_fft=512)
