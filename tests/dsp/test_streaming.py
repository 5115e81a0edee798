from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from basilar.dsp import streaming
from basilar.dsp.framing import Framing
from basilar.dsp.stft import stft
from basilar.dsp.streaming import FrameStream, spans


@st.composite
def framings(draw):
    n_fft = draw(st.integers(1, 40))
    return Framing(
        n_fft,
        draw(st.integers(1, 50)),
        min(draw(st.integers(1, 40)), n_fft),
        window="rectangular",
        center=draw(st.booleans()),
        pad_mode=draw(st.sampled_from(["reflect", "symmetric", "constant", "edge"])),
        align=draw(st.sampled_from(["center", "left"])),
        drop_last=draw(st.booleans()),
    )


@given(
    n_samples=st.integers(1, 400),
    cuts=st.lists(st.integers(0, 60), max_size=12),
    framing=framings(),
)
def test_the_frames_of_pieces_are_those_of_the_whole(n_samples, cuts, framing):
    y = np.arange(1, n_samples + 1, dtype=np.float32)
    stream = FrameStream(framing)
    pieces = np.split(y, np.minimum(np.cumsum(cuts), n_samples))
    inner = replace(framing, center=False, drop_last=False)
    parts = [*(stream.push(piece) for piece in pieces), stream.finish()]
    found = [frame for part in parts if part.size for frame in inner.frames(part)]
    expected = framing.frames(y) if framing.n_frames(n_samples) else np.empty((0, framing.length))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@example(n_samples=300, span=40, framing=Framing(16, 4, pad_mode="reflect"))  # padded at both ends
@given(n_samples=st.integers(0, 300), span=st.integers(1, 100), framing=framings())
def test_spans_of_any_length_hold_the_frames_of_the_whole(n_samples, span, framing):
    y = np.arange(1, n_samples + 1, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streaming, "_SPAN", span)
        found = [framing.bare.frames(part).copy() for part in spans(y, framing)]
    assert all(map(len, found))
    assert sum(map(len, found)) == framing.n_frames(n_samples)
    if found:
        np.testing.assert_array_equal(np.concatenate(found), framing.frames(y), strict=True)


def test_little_is_remembered():
    stream = FrameStream(Framing(512, 128, pad_mode="reflect"))
    kept = 0
    for _ in range(1000):
        stream.push(np.zeros(100, np.float32))
        kept = max(kept, stream._samples.nbytes)
    assert kept < 4 * 3 * 512


def test_frames_come_as_soon_as_they_are_complete():
    framing = Framing(512, 128, center=False)
    stream = FrameStream(framing)
    y = np.ones(512, np.float32)
    assert stream.push(y[:511]).size == 0
    assert stft([stream.push(y[511:])], framing)[0].shape == (1, 257)
    assert stream.finish().size == 0
