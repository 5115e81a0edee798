import re

import numpy as np
import pytest
from markupsafe import Markup

from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report import page
from basilar.pipeline.report.describe import Cells, Table
from tests.conftest import HOSTILE


def parts(name, *arguments):
    """What a macro of the templates makes of its arguments."""
    macros = page._environment().get_template("parts.html.j2").module
    return str(getattr(macros, name)(*arguments))


def test_a_table_says_how_many_rows_there_are_and_escapes_what_they_hold():
    html = parts("table", HOSTILE, Table(("clip",), [(HOSTILE,)], 1234, "the worst first"))
    assert "the first 1 of 1,234, the worst first</caption>" in html
    assert "<script" not in html
    assert "\x1b" not in html
    assert html.count("&lt;script&gt;") == 3


@pytest.mark.parametrize(
    ("value", "raw", "text"),
    [
        (1234, "1234", "1,234"),
        (float("nan"), "NaN", "not known"),
        (float("-inf"), "-Infinity", "−∞"),
        (-0.125, "-0.125", "−0.1250"),
    ],
)
def test_numbers_are_shown_to_people_and_sorted_by_what_they_are(value, raw, text):
    html = parts("table", "numbers", Table(("a", "b"), [("x", value)], 1))
    assert f'<td class="n" data-v="{raw}">{text}</td>' in html


def test_a_column_has_as_many_digits_as_its_largest_number_needs():
    rows = [("x", 12.0, 1e-6, 3), ("y", 0.5, 1.0, 4)]
    assert page._digits(Table(("", "", "", ""), rows, 2)) == [None, 2, None, None]


def test_lines_keep_their_ends_and_nothing_else():
    assert page.block(["<a>", "b\x1bc"]) == Markup("&lt;a&gt;\nb\\x1bc")


def test_a_page_allows_no_network_and_one_script_by_its_hash():
    html = page.written(
        "pair.html.j2",
        **dict.fromkeys(("title", "eyebrow", "heading", "summary", "command"), HOSTILE),
        **{name: Table((), [], 0) for name in ("fields", "groups")},
        **{name: Table(("x",) * 3, [(HOSTILE,) * 3], 1) for name in ("sides", "counts")},
        **{"sections": [(HOSTILE, HOSTILE)], "names": [(HOSTILE, HOSTILE)]},
        charts={"data": [], "features": []},
    )
    (policy,) = re.findall('Content-Security-Policy" content="([^"]+)"', html)
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    assert "script-src 'sha256-" in policy
    assert "script-src 'unsafe" not in policy
    assert html.count("<script") == 1
    assert not re.search(r"https?://(?!www\.w3\.org)", html)


def test_histograms_are_told_in_words():
    cells = Cells(np.array([0.0, 1.0, 2.0, 4.0]), np.array([1, 5, 2]))
    recipe = Recipe.from_dict({"representation": {"kind": "mel"}})
    with page.charts.style():
        chart = page.durations([("", cells)])
        both = page.levels([("a", cells), ("b", cells)], recipe)
    said = "from 0 to 4 s; about half of the clips are below 2 s; the most common "
    said += "values are between 1 and 2 s."
    assert chart.words.lower() == said
    assert f'aria-label="Duration of clips. {chart.words}"' in chart.svg
    assert "a: from 0 to 4 dB" in both.words
    assert "b: from 0 to 4 dB" in both.words
