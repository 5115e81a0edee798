"""A report says what is so, and its page works in a browser: nothing of it is only looked at."""

import importlib.util
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from basilar import FeatureSet
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.explain import Side, why
from basilar.pipeline.report import of_pair, of_set
from basilar.pipeline.report.collect import collect
from tests.conftest import HOSTILE

CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="chromium or playwright is not installed",
)
SECTIONS = ["What it is", "Data", "Features", "Examples", "Quarantine", "Hashes", "Build"]
BUILT = {
    **{"started": 1_700_000_000.0, "seconds": 12.5, "shards": 9},
    "pending": {"decode": 2, "resample": 2, "representation": 9},
}


@pytest.fixture(scope="module")
def found(mixed):
    return collect(FeatureSet.open(mixed.store), mixed.plan.manifest)


@pytest.fixture(scope="module")
def file(found, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(of_set.render(found), "utf-8")
    return file


def named(table):
    return [row[0] for row in table.rows]


def test_clips_that_stand_out_are_named_and_counted(found):
    assert (named(found.silent), found.silent.total) == (["silent"], 1)
    assert (named(found.clipped), found.clipped.total) == (["clipped"], 1)
    assert {"silent", "tone"} <= set(named(found.outliers))
    assert found.outliers.rows[0][3] == max(row[3] for row in found.outliers.rows)
    assert [row[1:3] for row in found.quarantine.rows] == [("decode", "not_audio")]
    assert found.reasons.rows == [("decode", "not_audio", 1)]


def test_counts_are_those_of_the_set(found, mixed):
    fs = FeatureSet.open(mixed.store)
    assert sum(row[1] for row in found.labels.rows) == found.attributes["clips"] == 22
    assert found.durations.counts.sum() == found.levels.counts.sum() == found.n_heard == 22
    assert sum(row[3] for row in found.splits.rows) == fs.attributes["frames"]
    assert found.hours == pytest.approx(fs.clips["duration"].sum() / 3600)
    assert found.n_labels == 3
    for row in found.labels.rows:
        assert row[1] == sum(row[4:]) == (fs.clips["label"] == row[0]).sum()
    assert found.groups == (5, 5)
    assert found.tree.value == fs.key
    assert [shard[1] for shard in found.shards.rows] == [len(s.rows) for s in mixed.plan.shards]


def test_normalized_statistics_are_those_of_normalized_features(found, mixed):
    fs = FeatureSet.open(mixed.store).select(split="train")
    x = np.concatenate([fs.normalize(fs[i]) for i in range(len(fs))])
    assert found.after.mean == pytest.approx(np.zeros(8), abs=1e-6)
    assert found.after.std == pytest.approx(np.ones(8))
    assert found.after.max == pytest.approx(x.max(axis=0), rel=1e-5)
    cell = np.diff(found.after.edges, axis=1).max()
    assert found.after.percentiles[3] == pytest.approx(np.median(x, axis=0), abs=cell)


def test_a_limit_of_what_is_listened_to_is_said(mixed):
    some = collect(FeatureSet.open(mixed.store), mixed.plan.manifest, seconds=1.0)
    assert 0 < some.n_heard < 22
    assert "silent" in named(some.silent)  # by its features
    said = re.search(r"measured for (\d+) of 22 clips", of_set.render(some))
    assert int(said[1]) == some.n_heard


def test_audio_that_is_gone_is_said_and_no_error(mixed, root_of, tmp_path):
    shutil.rmtree(root_of / "artifacts" / "resample")
    fs = FeatureSet.open(root_of / "features" / mixed.store.name)
    gone = collect(fs, replace(mixed.plan.manifest, root=tmp_path / "gone"))
    assert gone.n_heard == 0
    assert {example.audio for example in gone.examples} == {None}
    page = of_set.render(gone)
    assert "the audio root" in page
    assert "audio not available" in page
    assert "<audio" not in page


@pytest.fixture
def root_of(mixed, tmp_path):
    """A copy of the root, to damage."""
    return Path(shutil.copytree(mixed.root, tmp_path / "root"))


def test_a_recorded_build_is_told_and_a_missing_one_too(found):
    assert "was not recorded" in of_set.render(found)
    page = of_set.render(replace(found, built=BUILT))
    assert "began on 2023-11-14 22:13 UTC and took 12.5 s" in page
    assert "shards cached" in page


def test_equal_reports_are_equal_bytes_below_a_limit(found, file, mixed):
    again = collect(FeatureSet.open(mixed.store), mixed.plan.manifest)
    assert of_set.render(again) == file.read_text("utf-8")
    assert file.stat().st_size < 1e6


def test_names_of_clips_stay_text(file):
    page = file.read_text("utf-8")
    assert page.count("<script>") == page.count("</script>") == 1
    assert "&lt;script&gt;document.title" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", page)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*as_root, "--autoplay-policy=no-user-gesture-required", "--mute-audio"],
        )


@pytest.fixture(scope="module")
def events():
    return {"said": [], "asked": set()}


@pytest.fixture(scope="module")
def opened(browser, file, events):
    page = browser.new_page()
    page.on("console", lambda message: events["said"].append(message.text))
    page.on("pageerror", lambda error: events["said"].append(str(error)))
    page.on("request", lambda request: events["asked"].add(request.url))
    page.goto(file.as_uri())
    return page


@pytest.fixture
def page(opened, events, file):
    """The page, which says nothing and asks for nothing."""
    yield opened
    assert events["said"] == []
    assert {url for url in events["asked"] if not url.startswith("data:")} == {file.as_uri()}
    opened.emulate_media(color_scheme="light", media="screen")


@in_browser
def test_every_section_is_there_and_nothing_of_a_name_runs(page):
    assert page.locator("h2").all_inner_texts() == SECTIONS
    assert page.locator("nav a").all_inner_texts() == SECTIONS
    assert page.title().startswith("small ")
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert shown in page.locator("#quarantine").inner_text()
    for chart in page.locator("svg").all():
        assert len(chart.get_attribute("aria-label")) > 40
    assert page.locator("#features svg").count() == 7


@in_browser
def test_tables_are_sorted_and_filtered_by_keyboard(page):
    table = page.locator("table", has=page.locator("caption", has_text="Values of each bin"))
    means = [float(value) for value in column(table, 2)]
    head = table.locator("th", has_text="mean")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(x) for x in column(table, 2)] == sorted(means)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(x) for x in column(table, 2)] == sorted(means, reverse=True)
    page.get_by_label("Filter: Values of each bin").focus()
    page.keyboard.type(column(table, 2, "text")[2].strip())
    assert table.locator("tbody tr:visible").count() == 1
    assert page.locator("output", has_text="1 of 8 rows").count() == 1


def column(table, number, what="value"):
    cells = table.locator(f"tbody tr > :nth-child({number + 1})")
    if what == "text":
        return cells.all_inner_texts()
    return cells.evaluate_all("cells => cells.map(cell => cell.dataset.v)")


@in_browser
def test_audio_plays(page):
    assert page.locator("audio").count() == 9
    played = page.evaluate(
        """async () => {
            const audio = document.querySelector("audio");
            const moved = new Promise((done) => {
                for (const event of ["timeupdate", "error"]) {
                    audio.addEventListener(event, () => {
                        if (audio.currentTime > 0 || audio.error) done();
                    });
                }
            });
            await audio.play();
            await moved;
            return [audio.currentTime > 0, audio.duration > 0.3, audio.error?.message ?? null];
        }"""
    )
    assert played == [True, True, None]


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anyone_can_read_it(page, scheme):
    page.emulate_media(color_scheme=scheme)
    assert problems_of(page) == []


@in_browser
def test_anyone_can_read_the_page_of_a_pair(browser, found, mixed, tmp_path):
    changed = found.recipe.resolved()
    changed["representation"]["floor"] = 1e-5
    attributes = {**found.attributes, "digest": "0" * 32}
    other = replace(found, recipe=Recipe.from_dict(changed), attributes=attributes)
    manifest, versions = mixed.plan.manifest, found.attributes["op_versions"]
    sides = [Side("", report.recipe, manifest, versions, []) for report in (found, other)]
    file = tmp_path / "pair.html"
    file.write_text(of_pair.render(found, other, why(*sides)), "utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.locator("tr.differs").count() > 0
    assert problems_of(page) == []


def problems_of(page):
    """What axe finds that keeps people from reading a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response
    assert len(found["passes"]) > 20
    return [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found["violations"]]


@in_browser
def test_a_phone_shows_it_without_scrolling_sideways(page):
    page.set_viewport_size({"width": 375, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == 375


@in_browser
def test_print_shows_all_of_it(page):
    page.get_by_label("Filter: Values of each bin").fill("nothing has this")
    assert page.locator("tbody tr:visible").count() < page.locator("tbody tr").count()
    page.emulate_media(color_scheme="dark", media="print")
    assert page.locator("tbody tr:visible").count() == page.locator("tbody tr").count()
    assert page.locator("nav:visible, audio:visible, input:visible").count() == 0
    clipped = """() => [...document.querySelectorAll(".scroll")].filter(
        (box) => box.scrollHeight > box.clientHeight + 1).length"""
    assert page.evaluate(clipped) == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 251)"


@in_browser
def test_it_is_whole_without_script(browser, file):
    page = browser.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    assert page.locator("h2").all_inner_texts() == SECTIONS
    assert page.locator("tbody tr:visible").count() == page.locator("tbody tr").count() > 20
