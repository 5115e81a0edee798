import librosa
import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.chroma import cqt_to_chroma, normalize, stft_to_chroma

HALF_ULP = 2.0**-24
SETTINGS = {
    "sample_rate": 22050,
    "n_fft": 2048,
    "n_chroma": 12,
    "tuning": 0.0,
    "ctroct": 5.0,
    "octwidth": 2.0,
    "base_c": True,
}


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"n_chroma": 24, "n_fft": 4096, "tuning": 0.3},
        {"n_chroma": 36, "sample_rate": 16000, "n_fft": 512, "octwidth": None, "tuning": -0.2},
        {"n_chroma": 11, "n_fft": 4096},  # C is three twelfths up, rounded down: 0 classes
        {"n_chroma": 23, "n_fft": 4096},  # and 3
        {"n_chroma": 7, "n_fft": 8192, "octwidth": 1.0, "ctroct": 4.0},
        {"n_chroma": 5, "n_fft": 64, "octwidth": 0.25},
        {"base_c": False, "n_fft": 255},
        {"n_chroma": 1, "n_fft": 3},
    ],
    ids=str,
)
def test_stft_filters_equal_librosas(setting):
    settings = SETTINGS | setting
    ours = stft_to_chroma(**settings)
    theirs = librosa.filters.chroma(
        sr=settings.pop("sample_rate"), **settings, norm=2, dtype=np.float64
    )
    assert (ours.shape, ours.toarray().dtype) == (theirs.shape, np.float32)
    # Ours are rounded to float32; 1e-12 is what counts as zero.
    np.testing.assert_allclose(ours.toarray(), theirs, rtol=1.001 * HALF_ULP, atol=1e-12)


def test_stft_filters_equal_the_matlab_ones(corpora):
    files = sorted((corpora / "refs" / "librosa").glob("feature-chromafb-*.mat"))
    assert files
    for file in files:
        one = scipy.io.loadmat(file)
        n_chroma = int(one["nchroma"].item())
        ours = stft_to_chroma(
            sample_rate=int(one["sr"].item()),
            n_fft=int(one["nfft"].item()),
            n_chroma=n_chroma,
            tuning=n_chroma * float(np.log2(one["a440"].item() / 440)),
            ctroct=float(one["ctroct"].item()),
            octwidth=float(one["octwidth"].item()) or None,
            base_c=False,
        ).toarray()
        theirs = one["wts"][:, : ours.shape[1]]
        np.testing.assert_allclose(ours, theirs, rtol=1.001 * HALF_ULP, atol=1e-12)


@pytest.mark.parametrize("n_chroma", [12, 24])
def test_unweighted_bins_have_unit_length_and_no_subnormal_weights(n_chroma):
    filters = stft_to_chroma(**SETTINGS | {"n_chroma": n_chroma, "octwidth": None})
    # n_chroma squares of weights rounded to float32.
    length = np.sqrt((filters.toarray().astype(np.float64) ** 2).sum(axis=0))
    np.testing.assert_allclose(length, 1, rtol=n_chroma * HALF_ULP)
    assert min(row[row != 0].min() for row in filters.weights) >= np.float32(1e-12)


@given(octave=st.integers(4, 7), semitone=st.integers(0, 11))
def test_a_note_belongs_to_its_class(octave, semitone):
    hz = 440 * 2.0 ** ((12 * (octave - 4) + semitone - 9) / 12)
    filters = stft_to_chroma(**SETTINGS | {"n_fft": 8192}).toarray()
    # Bins are 2.7 Hz apart: from C4 on (semitones of 16 Hz) the nearest is within a tenth of one.
    assert filters[:, round(hz * 8192 / 22050)].argmax() == semitone


@pytest.mark.parametrize("base_c", [True, False])
@pytest.mark.parametrize("fmin", [32.70319566257483, 27.5, 30.0, 65.4, 440.0])
@pytest.mark.parametrize(
    ("n_bins", "bins_per_octave", "n_chroma"),
    [(84, 12, 12), (168, 24, 12), (252, 36, 12), (100, 36, 36), (30, 24, 24), (7, 60, 12)],
)
def test_cqt_filters_equal_librosas(n_bins, bins_per_octave, n_chroma, fmin, base_c):
    ours = cqt_to_chroma(
        n_bins, bins_per_octave=bins_per_octave, n_chroma=n_chroma, fmin=fmin, base_c=base_c
    )
    theirs = librosa.filters.cq_to_chroma(
        n_bins, bins_per_octave=bins_per_octave, n_chroma=n_chroma, fmin=fmin, base_c=base_c
    )
    assert ours.toarray().dtype == np.float32
    np.testing.assert_array_equal(ours.toarray(), theirs)


@pytest.mark.parametrize("norm", ["max", "l2", "none"])
def test_normalize_equals_librosa(norm):
    chroma_ct = np.random.default_rng(0).gamma(0.3, 100, (12, 500)).astype(np.float32)
    chroma_ct[:, 7] = 0
    chroma_ct[:, 8] *= np.float32(1e-36)
    chroma_ct[:, 9] *= np.float32(1e30)
    before = chroma_ct.copy()
    kinds = {"max": np.inf, "l2": 2, "none": None}
    theirs = librosa.util.normalize(chroma_ct.astype(np.float64), norm=kinds[norm], axis=0)
    ours = normalize(chroma_ct, norm=norm)
    assert ours.dtype == np.float32
    # The quotient is rounded to float32, of what is computed in float64 (1e-45: a subnormal).
    np.testing.assert_allclose(ours, theirs, rtol=1.001 * HALF_ULP, atol=1e-45)
    assert not ours[:, 7].any()
    np.testing.assert_array_equal(chroma_ct, before)
    assert not np.shares_memory(ours, chroma_ct)


@given(
    st.lists(st.floats(0, 2.0**126, width=32, allow_subnormal=False), min_size=1, max_size=24),
    st.sampled_from(["max", "l2"]),
)
def test_normalized_frames_have_norm_one_or_are_silent(values, norm):
    frame = np.array(values, np.float32)[:, None]
    ours = normalize(frame, norm=norm).astype(np.float64)
    length = ours.max() if norm == "max" else np.sqrt((ours * ours).sum())
    # The largest is divided by itself; of the lengths each of the values is rounded.
    tolerance = 0 if norm == "max" else 2 * HALF_ULP
    assert abs(length - (1 if any(values) else 0)) <= tolerance


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stft_to_chroma(**SETTINGS | {"n_chroma": 0}), "0, 2048, 22050 must be at least 1"),
        (lambda: stft_to_chroma(**SETTINGS | {"n_fft": 2}), "12, 2, 22050 must be"),
        (lambda: stft_to_chroma(**SETTINGS | {"sample_rate": 0}), "12, 2048, 0 must be"),
        (lambda: stft_to_chroma(**SETTINGS | {"octwidth": 0.0}), "octwidth: 0.0 must be above 0"),
        (
            lambda: cqt_to_chroma(84, bins_per_octave=30, n_chroma=12, fmin=30.0, base_c=True),
            "bins_per_octave: 30 must be a multiple of n_chroma = 12",
        ),
        (
            lambda: cqt_to_chroma(84, bins_per_octave=12, n_chroma=12, fmin=0.0, base_c=True),
            "n_bins, fmin: 84, 0.0 Hz must be 1 or more and above 0 Hz",
        ),
        (lambda: normalize(np.ones((12, 1), np.float32), norm="l1"), "'l1' is not one of max, l2"),
    ],
)
def test_impossible_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
