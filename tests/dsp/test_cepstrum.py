import librosa
import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.cepstrum import dct_matrix, deltas, lifter
from basilar.dsp.kernel import over_rows

HALF_ULP = 2.0**-24  # relative: half an ulp of float32


@pytest.mark.parametrize("norm", ["ortho", "none"])
@pytest.mark.parametrize(("n_mfcc", "n_mels"), [(13, 40), (20, 128), (13, 23), (40, 40), (1, 1)])
def test_dct_equals_scipy(norm, n_mfcc, n_mels):
    theirs = scipy.fft.dct(np.eye(n_mels), type=2, norm=norm if norm == "ortho" else None, axis=0)
    ours = dct_matrix(n_mfcc, n_mels, norm=norm)
    assert (ours.shape, ours.toarray().dtype) == ((n_mfcc, n_mels), np.float32)
    # Cosines in float64, rounded; 1e-12 is what counts as zero.
    np.testing.assert_allclose(ours.toarray(), theirs[:n_mfcc], rtol=HALF_ULP, atol=1e-12)


def test_a_whole_ortho_dct_is_orthogonal():
    matrix = dct_matrix(40, 40, norm="ortho").toarray().astype(np.float64)
    # 40 products of rounded factors below 0.23.
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(40), atol=40 * 0.23**2 * 2 * HALF_ULP)


def test_norms_differ_by_what_the_libraries_documents_say():
    n = 23
    ortho, none, htk = (dct_matrix(13, n, norm=norm).toarray() for norm in ("ortho", "none", "htk"))
    # Each is rounded once: two halves of an ulp.
    np.testing.assert_allclose(htk, none * np.sqrt(1 / (2 * n)), rtol=2 * HALF_ULP)
    np.testing.assert_array_equal(htk[1:], ortho[1:])
    np.testing.assert_allclose(htk[0], ortho[0] * np.sqrt(2), rtol=2 * HALF_ULP)


@pytest.mark.parametrize("n_mels", [3, 15, 40, 128])
def test_where_a_cosine_is_zero_so_is_the_weight(n_mels):
    k, m = np.arange(n_mels)[:, None], np.arange(n_mels)
    zero = k * (2 * m + 1) % (2 * n_mels) == n_mels
    matrix = dct_matrix(n_mels, n_mels, norm="none")
    np.testing.assert_array_equal(matrix.toarray() == 0, zero)


@pytest.mark.parametrize("lifter_coefficient", [0, 22])
def test_mfcc_equals_librosa(noise, lifter_coefficient):
    log_mel_mt = librosa.power_to_db(librosa.feature.melspectrogram(y=noise(22050), sr=22050))
    theirs = librosa.feature.mfcc(S=log_mel_mt, n_mfcc=20, lifter=lifter_coefficient)
    weights = lifter(20, lifter_coefficient, convention="librosa")
    ours = over_rows(log_mel_mt.T, bank=dct_matrix(20, 128, norm="ortho")).T * weights[:, None]
    assert ours.dtype == np.float32
    # float32 sums of 128 products, in another order than SciPy's: a few ulp of the largest of them,
    # coefficient 0, and no more than 12 times that where liftered.
    largest = weights.max() * np.abs(theirs[0]).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * HALF_ULP * largest)


def test_mfcc_and_deltas_equal_htks(corpora):
    # HCopy wrote both files with the same settings but for the kind: FBANK, and MFCC_D_A_0.
    folder = corpora / "refs" / "kaldi_htk"
    bands, cepstra = (
        np.fromfile(folder / f"test.wav.{name}", ">f4", offset=12).reshape(142, -1)
        for name in ("fbank_htk.1", "fea_htk.1")
    )
    weights = lifter(13, 22, convention="htk")
    log_mel_tm = np.ascontiguousarray(bands, np.float32)
    ours = np.roll(over_rows(log_mel_tm, bank=dct_matrix(13, 23, norm="htk")) * weights, -1, axis=1)
    # Values up to 100 from sums of 23 float32 products on both sides, weighted by up to 12.
    np.testing.assert_allclose(ours, cepstra[:, :13], rtol=0, atol=2e-4)
    first = deltas(ours, width=5, order=1, mode="nearest")
    second = deltas(first, width=5, order=1, mode="nearest")
    np.testing.assert_allclose(first, cepstra[:, 13:26], rtol=0, atol=1e-4)
    np.testing.assert_allclose(second, cepstra[:, 26:], rtol=0, atol=1e-4)


def test_lifter_closed_forms():
    # At n = L / 2 the sine is 1, at n = L it is 0; librosa's index is one ahead.
    assert lifter(23, 22, convention="htk")[[0, 11, 22]].tolist() == [1, 12, 1]
    assert lifter(22, 22, convention="librosa")[[10, 21]].tolist() == [12, 1]
    np.testing.assert_array_equal(
        lifter(20, 22.5, convention="htk")[1:], lifter(19, 22.5, convention="librosa")
    )
    assert (lifter(5, 0, convention="librosa") == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        lifter(5, 0, convention="librosa")[0] = 2


@pytest.mark.parametrize("mode", ["nearest", "interp"])
@pytest.mark.parametrize(("width", "order"), [(9, 1), (9, 2), (5, 1), (3, 1), (3, 2), (11, 3)])
def test_deltas_equal_librosa(mode, width, order):
    x_tf = np.random.default_rng(1).standard_normal((50, 13)).astype(np.float32)
    theirs = librosa.feature.delta(
        x_tf.astype(np.float64), width=width, order=order, mode=mode, axis=0
    )
    ours = deltas(x_tf, width=width, order=order, mode=mode)
    assert ours.dtype == np.float32
    # Weight, differences, product and sums are rounded: some 8 ulp of weights' sum times values.
    size = np.abs(scipy.signal.savgol_coeffs(width, order, deriv=order)).sum() * np.abs(x_tf).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * HALF_ULP * size)


@pytest.mark.parametrize("n_frames", [1, 2, 4, 30])
def test_padding_before_two_deltas_equals_kaldis_second_deltas(n_frames):
    # Kaldi convolves the kernel with itself and repeats the coefficients beyond the ends.
    x_tf = np.random.default_rng(2).standard_normal((n_frames, 3)).astype(np.float32)
    kernel = np.arange(-2, 3) / 10
    twice = np.convolve(kernel, kernel)
    padded = np.pad(x_tf.astype(np.float64), ((4, 4), (0, 0)), mode="edge")
    theirs = sum(twice[j] * padded[j : j + n_frames] for j in range(9))
    longer = np.pad(x_tf, ((2, 2), (0, 0)), mode="edge")
    once = deltas(longer, width=5, order=1, mode="nearest")
    ours = deltas(once, width=5, order=1, mode="nearest")[2:-2]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * HALF_ULP * np.abs(x_tf).max())


@given(
    value=st.floats(-(2.0**100), 2.0**100, width=32),
    width=st.sampled_from([3, 5, 9]),
    order=st.integers(1, 2),
    mode=st.sampled_from(["nearest", "interp"]),
)
def test_deltas_of_a_constant_are_zero_exactly(value, width, order, mode):
    x_tf = np.full((12, 2), value, np.float32)
    assert not deltas(x_tf, width=width, order=order, mode=mode).any()


@given(order=st.integers(1, 4), width=st.sampled_from([5, 7, 9]), n_frames=st.integers(9, 20))
def test_the_derivative_of_a_power_is_its_factorial(order, width, n_frames):
    x_tf = (np.arange(n_frames) ** order).astype(np.float32)[:, None]
    ours = deltas(x_tf, width=width, order=order, mode="interp")
    expected = [1, 1, 2, 6, 24][order]
    # The powers are whole numbers and exact; weights times their largest differences are rounded.
    size = np.abs(scipy.signal.savgol_coeffs(width, order, deriv=order)).sum() * x_tf.max()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=8 * HALF_ULP * size)


@given(st.integers(0, 30), st.integers(5, 30))
def test_deltas_of_an_excerpt_have_the_same_bits_inside_it(start, length):
    x_tf = np.random.default_rng(3).standard_normal((60, 5)).astype(np.float32)
    whole = deltas(x_tf, width=5, order=2, mode="nearest")
    part = deltas(x_tf[start : start + length], width=5, order=2, mode="nearest")
    assert part[2:-2].tobytes() == whole[start + 2 : start + length - 2].tobytes()


def test_deltas_leave_their_input_alone():
    x_tf = np.random.default_rng(4).standard_normal((9, 2)).astype(np.float32)
    before = x_tf.copy()
    for mode in ("nearest", "interp"):
        deltas(x_tf, width=9, order=1, mode=mode)[:] = 7
    np.testing.assert_array_equal(x_tf, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dct_matrix(3, 4, norm="slaney"), "'slaney' is not one of ortho, none, htk"),
        (lambda: dct_matrix(5, 4, norm="ortho"), "n_mfcc: 5 must be within 1 to n_mels = 4"),
        (lambda: dct_matrix(0, 4, norm="ortho"), "n_mfcc: 0 must be within 1"),
        (lambda: lifter(3, 22, convention="kaldi"), "'kaldi' is not one of htk, librosa"),
        (lambda: lifter(3, -1, convention="htk"), "lifter_coefficient: -1 must be 0 or more"),
        (lambda: lifter(3, np.inf, convention="htk"), "lifter_coefficient: inf must be"),
    ],
)
def test_impossible_tables_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "mirror"}, "'mirror' is not one of nearest, interp"),
        ({"width": 4}, "width: 4 must be an odd number of frames, 3 or more"),
        ({"width": 1}, "width: 1 must be an odd"),
        ({"order": 0}, "order: 0 must be within 1 to width - 1 = 4"),
        ({"order": 5}, "order: 5 must be within"),
        ({"mode": "interp"}, "4 frames are fewer than the 5 of mode 'interp'"),
        ({"n_frames": 0}, "0 frames are fewer than the 1 of mode 'nearest'"),
    ],
)
def test_impossible_deltas_are_refused(arguments, message):
    settings = {"n_frames": 4, "width": 5, "order": 1, "mode": "nearest"} | arguments
    x_tf = np.zeros((settings.pop("n_frames"), 2), np.float32)
    with pytest.raises(ValueError, match=message):
        deltas(x_tf, **settings)
