import re
from dataclasses import replace

import pytest

from basilar import FeatureSet
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.explain import ClipChange, Side, why
from basilar.pipeline.report import of_pair
from basilar.pipeline.report.collect import collect


@pytest.fixture(scope="module")
def side(built):
    return collect(FeatureSet.open(built.store), built.plan.manifest)


def of(found, built):
    return Side("", found.recipe, built.plan.manifest, found.attributes["op_versions"], [])


def test_equal_sets_differ_in_nothing(side, built):
    page = of_pair.render(side, side, why(of(side, built), of(side, built)))
    assert "0 fields and 0 clips differ; the values are equal." in page
    assert "No field of the recipes, versions or decoders differs." in page
    assert 'class="differs"' not in page


def test_fields_clips_and_facts_that_differ_are_shown_side_by_side(side, built):
    changed = side.recipe.resolved()
    changed["representation"]["floor"] = 1e-5
    versions = {**side.attributes["versions"], "numpy": "0.1"}
    attributes = {**side.attributes, "digest": "0" * 32, "versions": versions, "clips": 11}
    other = replace(side, recipe=Recipe.from_dict(changed), attributes=attributes)
    found = why(of(side, built), of(other, built))
    found.clips["relabelled"] = [ClipChange(f"clip {i}", "a", "<b>") for i in range(60)]
    page = re.sub(r"\s+", " ", of_pair.render(side, other, found))
    assert "2 fields and 60 clips differ; the values are not equal." in page
    assert '<th scope="row">representation.floor</th><td>1e-10</td><td>1e-05</td>' in page
    assert "<td>version, in no hash</td>" in page
    assert "the first 50 of 60, some of each change" in page
    assert "<td>a</td><td>&lt;b&gt;</td>" in page
    bold = re.findall(r'<tr class="differs"><th scope="row">([^<]+)', page)
    assert bold == ["digest", "clips"]
    assert page.count("<svg") == 4  # durations, levels, and both sets in one chart each


def test_sets_of_other_bins_have_charts_of_their_own(side, built):
    one_bin = {name: getattr(side.before, name)[:4] for name in ("mean", "std", "min", "max")}
    other = replace(side.before, **one_bin, counts=side.before.counts[:4], unit="ln")
    page = of_pair.render(side, replace(side, before=other), why(of(side, built), of(side, built)))
    assert page.count("<svg") == 6
