"""docs/tour.ipynb says what it says when it is run: `make docs` and `make torture` run it."""

import base64
import importlib.util
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY

TOUR = REPOSITORY / "docs" / "tour.ipynb"
NOTEBOOK = nbformat.read(TOUR, 4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
spec = importlib.util.spec_from_file_location("run_tour", REPOSITORY / "docs" / "run_tour.py")
run_tour = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_tour)


def said(cell):
    """What a cell prints, and what it shows: its kinds, and how it is written."""
    shown = [output.get("data", {}) for output in cell.outputs]
    printed = [output.get("text") for output in cell.outputs]
    return printed, [(sorted(data), data.get("text/plain")) for data in shown]


def drawn(cell):
    """Its pictures, uint8 (height, width, 3)."""
    pictures = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    files = [io.BytesIO(base64.b64decode(picture)) for picture in pictures]
    return [np.asarray(Image.open(file).convert("RGB"), np.int16) for file in files]


def test_it_is_one_hour_of_reading_and_was_run_from_top_to_bottom():
    nbformat.validate(NOTEBOOK)
    assert 12 <= len(NOTEBOOK.cells) <= 20
    assert TOUR.stat().st_size < 600_000
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    assert all(cell.outputs for cell in CODE[1:])
    assert sum(len(drawn(cell)) for cell in CODE) == 3


def test_it_names_no_machine_and_no_time():
    assert set(NOTEBOOK.metadata) == {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in NOTEBOOK.cells)
    for output in (output for cell in CODE for output in cell.outputs):
        assert output.output_type != "error"
        if output.output_type == "stream":
            assert output.text == run_tour.lasting(output.text, Path("/nowhere"))
            assert not re.search(r"(?<![\w…])/\w+/|\d{4}-\d\d-\d\d|\d\d:\d\d|\x1b", output.text)


def test_its_links_lead_somewhere():
    text = "".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 5
    for link in links:
        assert (TOUR.parent / link).exists(), link


@pytest.mark.torture
def test_it_says_what_it_says_when_it_is_run(tmp_path):
    now = [cell for cell in run_tour.run(tmp_path).cells if cell.cell_type == "code"]
    for kept, cell in zip(CODE, now, strict=True):
        assert said(cell) == said(kept), f"{cell.id}: run make tour and look at what it changes"
        for x, y in zip(drawn(cell), drawn(kept), strict=True):
            assert x.shape == y.shape
            assert np.count_nonzero(np.abs(x - y).max(axis=2) > 30) < 10
