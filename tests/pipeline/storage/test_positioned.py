import os

import numpy as np
import pytest

from basilar.pipeline.storage import positioned


@pytest.mark.parametrize("can_read_at", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.complex64])
def test_arrays_are_filled_from_a_position_on(tmp_path, monkeypatch, can_read_at, dtype):
    """The same where the system has no call for it (`os.preadv`), as Windows."""
    monkeypatch.setattr(positioned, "_CAN_READ_AT", can_read_at)
    x = np.arange(200).astype(dtype)
    (tmp_path / "file").write_bytes(b"head" + x.tobytes())
    with os.fdopen(positioned.open_to_read(tmp_path / "file"), "rb") as file:
        descriptor = file.fileno()
        out = np.zeros((4, 5), dtype)
        assert positioned.read_into(descriptor, out, 4 + 7 * x.itemsize) == out.nbytes
        np.testing.assert_array_equal(out, x[7:27].reshape(4, 5))
        assert positioned.read_into(descriptor, out, 4 + 199 * x.itemsize) == x.itemsize
        assert positioned.read_into(descriptor, out, 4 + x.nbytes) == 0
        assert positioned.read_into(descriptor, np.empty(0, dtype), 0) == 0


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        positioned.open_to_read(tmp_path / "nothing")
