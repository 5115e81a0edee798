"""The same bits whatever NumPy's dispatch, BLAS, threads, blocks and neighbours."""

import ast
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from basilar import Transform
from basilar.dsp import stft, streaming
from basilar.dsp.kernel import twin
from tests import bits, tree
from tests.conftest import REPOSITORY

DISPATCHED = [
    name
    for name in np._core._multiarray_umath.__cpu_dispatch__
    if np._core._multiarray_umath.__cpu_features__.get(name)
]
CORES = ["Haswell", "Zen", "SkylakeX", "Sandybridge", "Nehalem"]


def digests_with(**environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bits"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def here():
    return bits.digests()


@pytest.mark.slow
@pytest.mark.skipif(not DISPATCHED, reason="this processor has nothing above the baseline")
def test_numpys_dispatch_features(here):
    """All of them off, and the newest half off: other code runs, the same bits come out."""
    for off in (DISPATCHED, DISPATCHED[len(DISPATCHED) // 2 :]):
        assert digests_with(NPY_DISABLE_CPU_FEATURES=" ".join(off)) == here


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
def test_blas_kernels_and_threads(here, core):
    threads = str(1 + CORES.index(core) % 2)
    variables = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    assert digests_with(OPENBLAS_CORETYPE=core, **dict.fromkeys(variables, threads)) == here


def test_block_sizes(here, monkeypatch):
    for samples in (1, 30_000):
        monkeypatch.setattr(stft, "_SAMPLES", samples)
        monkeypatch.setattr(streaming, "_SPAN", 20_000)
        assert bits.digests() == here


def test_the_kernels_twin(here, monkeypatch):
    monkeypatch.setenv("BASILAR_KERNEL", "numpy")
    for values in (1 << 13, 1 << 18):
        monkeypatch.setattr(twin, "_VALUES", values)
        assert bits.digests() == here


@pytest.mark.parametrize("file", sorted(bits.PARAMS.glob("*.toml")), ids=lambda f: f.stem)
def test_a_clip_alone_or_among_others(file):
    transform = Transform.from_recipe(file)
    signals = [transform.resample(y, source_rate=rate) for y, rate in bits.clips()]
    together = transform.represent(signals)
    for y, x in zip(signals, together, strict=True):
        assert transform.represent([y])[0].tobytes() == x.tobytes()


# What other processors or libraries compute otherwise, and where it may be used all the same:
# tables, which are made in float64 and rounded to float32.
UNPORTABLE = {
    *("dot", "matmul", "einsum", "inner", "vdot", "tensordot", "convolve", "fftconvolve"),
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "tanh"),
    *("power", "float_power", "hypot", "abs", "absolute", "angle", "sum", "mean", "std", "var"),
    *("linalg", "cbrt", "arctanh", "sinh", "cosh", "arctan2", "nansum", "average", "prod"),
}
TABLES = {
    "resample": {"<module>", "of", "_program"},
    "cepstrum": {"dct_matrix", "lifter"},
    "chroma": {"stft_to_chroma", "cqt_to_chroma"},
    "cqt": {"frequencies", "lengths", "_rates", "_bands", "table_bytes", "<module>"},
    "framing": {"window"},
    "kernel.tables": {"sine"},
    "kernel.native": {"plan"},  # 2**31 - 1
    "mel": {"hz_to_mel", "mel_to_hz", "_filters", "<module>"},
    "compress": {"<module>", "of_clip", "_offset", "_factors"},  # constants
    "moments": {"merge", "described"},
    "histogram": {"quantile"},  # integer counts, which are exact
    "normalize": {"centre_and_scale"},
}
FIELDS = {name: {"log"} for name in ("tables", "twin", "native")}  # of `Program`, no function


def uses(file):
    """(function, name) of everything unportable that a module calls or multiplies."""
    found = []

    def visit(node, function):
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.Attribute) and node.attr in UNPORTABLE - FIELDS.get(
            file.stem, set()
        ):
            found.append((function, node.attr))
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.MatMult):
                found.append((function, "@"))
            if isinstance(node.op, ast.Pow):
                found.append((function, "**"))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(file.read_text("utf-8")), "<module>")
    return found


@pytest.mark.parametrize("file", tree.modules("dsp"), ids=tree.inside)
def test_nothing_unportable_is_on_the_path_of_a_value(file):
    allowed = TABLES.get(tree.name_of(file).removeprefix("basilar.dsp."), set())
    outside = [use for use in uses(file) if use[0] not in allowed]
    assert not outside


def test_the_check_finds_what_it_looks_for(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("import numpy as np\ndef f(x, w):\n    return np.log(x @ w).sum() + x**2\n")
    assert {name for _, name in uses(file)} == {"log", "@", "sum", "**"}
