import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.framing import Framing, pad, sliding_sums, window


@pytest.mark.parametrize("kind", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 400, 2048])
def test_window_equals_scipy(kind, periodic, n):
    expected = scipy.signal.get_window(kind, n, fftbins=periodic)
    ours = window(kind, win_length=n, n_fft=n, periodic=periodic)
    # Both are cosines in float64; ours is then rounded to float32 (half an ulp of 1: 6e-8).
    np.testing.assert_allclose(ours, expected, atol=6e-8)


def test_window_is_centred_in_the_frame_and_cannot_be_changed():
    table = window("rectangular", win_length=3, n_fft=8)
    assert table.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "han", "win_length": 4, "n_fft": 4}, "'han' is not one of hann, hamming"),
        ({"kind": "hann", "win_length": 5, "n_fft": 4}, "5 samples do not fit into n_fft = 4"),
        ({"kind": "hann", "win_length": 0, "n_fft": 4}, "0 samples do not fit into n_fft = 4"),
    ],
)
def test_window_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        window(**arguments)


@given(
    n_samples=st.integers(1, 60),
    width=st.integers(0, 40),
    mode=st.sampled_from(["reflect", "constant", "edge"]),
)
def test_pad_equals_numpy(n_samples, width, mode):
    y = np.arange(1, n_samples + 1, dtype=np.float32)
    padded = pad(y, width=width, mode=mode)
    np.testing.assert_array_equal(padded, np.pad(y, width, mode=mode))
    assert padded.dtype == np.float32


@given(
    n_samples=st.integers(0, 300),
    n_fft=st.integers(1, 64),
    hop_length=st.integers(1, 80),
    center=st.booleans(),
)
def test_frames_are_counted_and_cut_alike(n_samples, n_fft, hop_length, center):
    framing = Framing(n_fft=n_fft, hop_length=hop_length, center=center)
    count = framing.n_frames(n_samples)
    y = np.arange(1, n_samples + 1, dtype=np.float32)
    if n_samples == 0:
        assert count == 0
        return
    whole = np.pad(y, n_fft // 2) if center else y
    expected = [
        whole[start : start + n_fft] for start in range(0, len(whole) - n_fft + 1, hop_length)
    ]
    assert count == len(expected)
    if expected:
        np.testing.assert_array_equal(framing.frames(y), np.stack(expected))


def test_frames_of_a_strided_signal():
    y = np.arange(20, dtype=np.float32)[::2]
    framing = Framing(n_fft=4, hop_length=2, center=False)
    assert framing.frames(y)[1].tolist() == [4, 6, 8, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_fft": 0, "hop_length": 1}, "n_fft, hop_length: 0, 1 must be 1 sample or more"),
        ({"n_fft": 4, "hop_length": 0}, "must be 1 sample or more"),
        ({"n_fft": 4, "hop_length": 1, "pad_mode": "zero"}, "'zero' is not one of reflect"),
        ({"n_fft": 4, "hop_length": 1, "win_length": 5}, "do not fit"),
    ],
)
def test_framing_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Framing(**arguments)


@given(
    n_samples=st.integers(1, 300),
    length=st.integers(1, 64),
    step=st.integers(1, 80),
)
def test_sliding_sums(n_samples, length, step):
    x = np.random.default_rng(0).integers(-1000, 1000, n_samples + length).astype(np.float32)
    expected = [x[start : start + length].sum() for start in range(0, n_samples + 1, step)]
    assert sliding_sums(x, length=length, step=step).tolist() == expected  # integers: exact


def conditioned(framing, y):
    """Kaldi's conditioning by its definition, in float64."""
    frames_tn = framing.frames(y).astype(np.float64)
    if framing.remove_dc:
        frames_tn -= frames_tn.mean(axis=1, keepdims=True)
    before = np.concatenate([frames_tn[:, :1], frames_tn[:, :-1]], axis=1)
    return frames_tn - framing.preemphasis * before


@pytest.mark.parametrize("remove_dc", [True, False])
@pytest.mark.parametrize("preemphasis", [0.0, 0.97])
@pytest.mark.parametrize("hop_length", [160, 77])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_conditioning_by_its_definition(noise, remove_dc, preemphasis, hop_length, offset):
    y = noise(4000) / np.abs(noise(4000)).max() + np.float32(offset)
    framing = Framing(
        512,
        hop_length,
        400,
        window="rectangular",
        align="left",
        center=False,
        remove_dc=remove_dc,
        preemphasis=preemphasis,
    )
    out = np.empty((framing.n_frames(4000), 512), np.float32)
    framing.cut(y, 0, out=out)
    # Samples of 11 have an ulp of 1e-6, and so has what is left of them, (1 - preemphasis) of it;
    # their mean is known to another. Differences of samples, up to 2, have one of 1.2e-7.
    left = (1 - preemphasis) * 2e-6 * (offset > 0) + 2.4e-7
    np.testing.assert_allclose(out[:, :400], conditioned(framing, y), rtol=0, atol=left)
    alone = np.empty((1, 512), np.float32)
    for t in (0, 1, len(out) - 1):
        framing.cut(y[t * hop_length :][:400], 0, out=alone)
        assert alone[:, :400].tobytes() == out[t, :400].tobytes()


def test_a_frame_out_of_range_does_not_spoil_the_next_one_in_its_place():
    framing = Framing(8, 4, 6, align="left", center=False, remove_dc=True)
    out = np.zeros((16, 8), np.float32)
    for y in np.full(6, 3e38, np.float32), np.arange(6, dtype=np.float32):
        with np.errstate(all="ignore"):
            framing.cut(y, 0, out=out[:1])
            framing.apply_window(out)
    assert out[0, 6:].tolist() == [0, 0]


def test_a_window_is_applied_to_all_frames_or_none(noise):
    framing = Framing(8, 4)
    frames_tn = noise(32 * 8).reshape(32, 8)
    expected = frames_tn * framing.table
    framing.apply_window(frames_tn)
    assert frames_tn.tobytes() == expected.tobytes()
    for wrong in (np.ones((15, 8), np.float32), np.ones((16, 16), np.float32)[:, :8]):
        with pytest.raises(ValueError, match=r"reshape|copy"):
            framing.apply_window(wrong)
