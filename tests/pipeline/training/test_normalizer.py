import numpy as np
import pytest

from basilar.dsp.normalize import normalize
from basilar.pipeline.store.arrays import write_array
from basilar.pipeline.training.normalizer import Normalizer


class Stored:
    """Rows as `store.reader.RowReader` gives them."""

    def __init__(self, values):
        self.values = values

    def read(self, start, stop):
        return self.values[start:stop]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_read_has_the_bits_of_what_is_normalized(tmp_path, noise, dtype):
    centre, scale = noise(4, 1), 1 + np.abs(noise(4, 2))
    for name, values in (("centre", centre), ("scale", scale)):
        write_array(tmp_path / "stats" / name, values, ("bin",))
    normalizer = Normalizer(tmp_path)
    x = noise(40).reshape(10, 4).astype(dtype)
    expected = normalize(x, centre, scale)
    np.testing.assert_array_equal(normalizer(x), expected, strict=True)
    out = np.empty((6, 4), np.float32)
    normalizer.read_into(Stored(x), 3, out)
    assert out.tobytes() == expected[3:9].tobytes()
