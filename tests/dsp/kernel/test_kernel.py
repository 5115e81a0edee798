import shutil

import numpy as np
import pytest

from basilar.dsp import kernel
from basilar.dsp.kernel import Program, native, twin


def test_the_environment_chooses_the_twin(monkeypatch):
    program = Program(np.ones(4, np.float32), 4, 4)
    monkeypatch.setenv("BASILAR_KERNEL", "numpy")
    assert kernel.in_use() == "NumPy"
    assert isinstance(kernel.plan(program), twin.Plan)
    monkeypatch.delenv("BASILAR_KERNEL")
    assert kernel.in_use() == ("C" if native.is_there() else "NumPy")


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_where_there_is_a_compiler_the_kernel_was_compiled():
    """Its installation is optional, and the tests of C skip without it."""
    assert native.is_there(), "pip install -e . says why not"


def test_without_a_compiled_kernel_the_twin_computes(monkeypatch):
    monkeypatch.setattr(native, "_native", None)
    assert native.widths() == ()
    assert kernel.in_use() == "NumPy"


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv("BASILAR_KERNEL", "fast")
    with pytest.raises(ValueError, match="'fast' is not numpy"):
        kernel.in_use()
