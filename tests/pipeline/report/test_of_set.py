"""What the page of one set says; that it works in a browser is in test_collect.py."""

from dataclasses import replace

import numpy as np
import pytest

from basilar import FeatureSet
from basilar.pipeline.report import of_set
from basilar.pipeline.report.collect import collect


@pytest.fixture(scope="module")
def found(built):
    return collect(FeatureSet.open(built.store), built.plan.manifest)


def test_it_says_what_the_set_is_and_how_to_reproduce_it(found):
    page = of_set.render(found)
    a = found.attributes
    for text in (
        a["key"],
        a["digest"],
        a["recipe_hash"],
        a["manifest_hash"],
        *a["hashes"].values(),
    ):
        assert f"<code>{text}</code>" in page
    assert f"basilar reproduce {a['key']} --root ROOT" in page
    assert "12 clips of 3 labels" in page
    assert "1 of 13 clips could not be used" in page
    assert "n_mels = 8" in page
    for name, version in a["versions"].items():
        assert f"{name} {version}" in page


def test_what_is_missing_is_said(found):
    bare = {k: v for k, v in found.attributes.items() if k not in ("seconds", "hashes", "shards")}
    page = of_set.render(replace(found, attributes={**bare, "canary": ["it differs"]}))
    assert "How long each stage took was not recorded" in page
    assert "was not recorded" in page
    assert "The canary did not match on the machine that computed the set: it differs" in page


def test_without_normalization_there_is_nothing_before_and_after(found):
    page = of_set.render(replace(found, after=None))
    assert "The recipe does not normalize." in page
    assert "Percentiles, as stored" in page
    assert ", normalized" not in page


def test_a_set_without_sound_to_play_says_so(found):
    silent = [e._replace(audio=None) for e in found.examples]
    assert of_set.render(replace(found, examples=silent)).count("; audio not available") == 9
    slow = found.recipe.model_copy(
        update={"resample": found.recipe.resample.model_copy(update={"sample_rate": 100})}
    )
    page = of_set.render(replace(found, recipe=slow))
    assert page.count("; browsers do not play 100 Hz") == 9


def test_stages_are_timed_and_counted(found):
    built = {"started": 0.0, "seconds": 9.0, "shards": 5, "pending": {"decode": 2}}
    table = of_set._stages(replace(found, built=built))
    assert [row[0] for row in table.rows] == ["decode", "resample", "representation"]
    assert [row[3:] for row in table.rows] == [(2, 3), (0, 5), (0, 5)]
    for row in table.rows:
        assert row[1] * row[2] == pytest.approx(3600 * found.hours)
        assert np.isfinite(row[2])
