"""Augmentation of features in training; all randomness comes from the caller's generator.

Nothing here is part of a recipe: stored features are never augmented.
"""

import numpy as np
from numpy.typing import NDArray


def spec_augment(
    x: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    bin_masks: int = 2,
    bin_width: int = 27,
    frame_masks: int = 2,
    frame_width: int = 100,
    frame_share: float = 1.0,
    fill: float = 0.0,
) -> NDArray[np.float32]:
    """A copy of `x`, float32 (frames, bins), with random bands and stretches of time set to `fill`.

    Each of the `bin_masks` bands is 0 to `bin_width` bins wide. Each of the `frame_masks` stretches
    has 0 to `frame_width` frames, and at most the share `frame_share` of all. Widths and positions
    are uniformly distributed. The masking is that of Park et al., "SpecAugment", Interspeech 2019;
    the default is its LibriSpeech double policy. 0 is the mean of normalized features. Raises
    ValueError for widths or numbers below 0, or a share outside 0 to 1.

    >>> x = np.ones((4, 3), np.float32)
    >>> masked = spec_augment(x, np.random.default_rng(0), bin_width=1, frame_masks=0)
    >>> masked.shape, bool((masked[0] == masked[3]).all())
    ((4, 3), True)
    """
    if min(bin_masks, bin_width, frame_masks, frame_width) < 0 or not 0 <= frame_share <= 1:
        raise ValueError("spec_augment: numbers and widths must be 0 or more, frame_share 0 to 1")
    masked = x.copy()
    frames, bins = x.shape
    for _ in range(bin_masks):
        masked[:, _stretch(rng, min(bin_width, bins), bins)] = fill
    for _ in range(frame_masks):
        masked[_stretch(rng, min(frame_width, int(frame_share * frames)), frames)] = fill
    return masked


def _stretch(rng: np.random.Generator, widest: int, length: int) -> slice:
    width = int(rng.integers(widest + 1))
    start = int(rng.integers(length - width + 1))
    return slice(start, start + width)
