"""docs/representations.md: each kind has its section, each picture is what its command draws."""

import importlib.util
import re
import shlex

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from basilar.pipeline.recipes.kinds.registry import KINDS
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "representations.md").read_text("utf-8")
SHOWN = re.findall(
    r"^```console\n\$ basilar plot (.*) -o docs/(pictures/\w+\.png)\n```\n\n!\[.+\]\((.*)\)$",
    PAGE,
    re.MULTILINE,
)


def test_every_kind_has_its_section_and_picture():
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(KINDS)
    for kind, text in sections.items():
        assert "pictures/" in text, kind
        assert "float32" in text or "complex64" in text or "10 log10" in text, kind


def test_every_command_stands_above_the_picture_that_it_draws():
    assert len(SHOWN) == PAGE.count("$ basilar") == PAGE.count("![")
    assert all(made == shown for _, made, shown in SHOWN)
    there = {f"pictures/{file.name}" for file in (DOCS / "pictures").glob("*.png")}
    assert {made for _, made, _ in SHOWN} == there
    assert all((DOCS / name).stat().st_size < 60_000 for name in there)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "name"), [shown[:2] for shown in SHOWN])
def test_a_picture_is_what_its_command_draws(arguments, name, basilar, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    code, _, err = basilar("plot", *shlex.split(arguments), "-o", tmp_path / "now.png")
    assert (code, err) == (0, "")
    with Image.open(tmp_path / "now.png") as now, Image.open(DOCS / name) as kept:
        assert now.size == kept.size
        moved = np.abs(np.subtract(now.convert("RGB"), kept.convert("RGB"), dtype=int))
    # A last bit that differs on another processor may move a pixel or two.
    assert np.count_nonzero(moved.max(axis=2) > 30) < 10, "run make pictures"


def test_the_clip_is_what_its_script_makes():
    spec = importlib.util.spec_from_file_location("make", DOCS / "pictures" / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    y, sample_rate = sf.read(make.CLIP)
    assert sample_rate == make.SAMPLE_RATE
    assert y == pytest.approx(make.clip(), abs=1.1 / 32768)
    assert len(make.commands()) == len(SHOWN)
