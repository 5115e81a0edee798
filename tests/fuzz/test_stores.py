"""Damaged JSON of bundles, stores and catalogues: right, or an error of their own."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline.audit.verify import verify
from basilar.pipeline.deployment.bundle import INDEX, Bundle, encode_index
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.errors import (
    BundleError,
    CanaryError,
    DamagedArtifactError,
    ForeignStoreError,
    NoRecordError,
)
from basilar.pipeline.records.record import find_record
from basilar.pipeline.storage.checksums import CHECKSUMS, read_checksums
from basilar.pipeline.training.feature_set import FeatureSet
from tests.damage import store_of
from tests.fuzz import examples
from tests.fuzz.recipes import WRONG, paths

NAMES = st.sampled_from(["../out", "/etc/passwd", "centre.npy", "golden/../../x", "-", ""])


def changed(data, file):
    """A JSON file's value with one value of it removed, or replaced by any other."""
    value = json.loads(file.read_text())
    *outer, last = data.draw(st.sampled_from(paths(value)[1:]))
    inner = value
    for key in outer:
        inner = inner[key]
    replacement = data.draw(st.one_of(st.just(...), NAMES, WRONG))
    if replacement is ...:
        del inner[last]
    elif isinstance(inner, dict) and data.draw(st.booleans()):
        inner[data.draw(NAMES)] = inner.pop(last)
    else:
        inner[last] = replacement
    return json.loads(json.dumps(value, default=str))


@pytest.fixture(scope="module")
def bundle(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    fs = FeatureSet.open(store_of(built.root))
    write_bundle(folder, fs, manifest=built.plan.manifest, clips=1)
    return folder


def listed(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


@examples(120)
@given(st.booleans(), st.data())
def test_a_bundle_of_any_index_is_refused_or_as_it_was(bundle, sealed, data):
    around = bundle.parent
    file = bundle / INDEX
    good, before = file.read_bytes(), listed(around)
    index = changed(data, file)
    if sealed:  # by who changes it
        index.pop("sha256", None)
        index["sha256"] = hashlib.sha256(encode_index(index)).hexdigest()
    file.write_bytes(encode_index(index))
    try:
        loaded = Bundle.load(bundle)
    except (BundleError, CanaryError) as error:
        assert str(bundle) in str(error)
    else:
        assert sealed or encode_index(index) == good
        loaded.check()
    finally:
        file.write_bytes(good)
    assert listed(around) == before


@examples(60)
@given(st.sampled_from(["zarr.json", CHECKSUMS, "catalogue"]), st.data())
def test_a_store_of_any_description_is_refused_and_never_sound(root, name, data):
    store = store_of(root)
    file = store / name
    if name == "catalogue":
        (file,) = (root / "catalogue" / "features").glob("*.json")
    good, before = file.read_bytes(), listed(root)
    value = changed(data, file)
    file.unlink()  # it may be linked
    file.write_text(json.dumps(value))
    different = value != json.loads(good)
    try:
        try:
            FeatureSet.open(store)
        except (ForeignStoreError, DamagedArtifactError) as error:
            assert str(store) in str(error)
        try:
            find_record(root, store.stem)
        except (DamagedArtifactError, NoRecordError) as error:
            assert store.stem in str(error)
        try:
            read_checksums(store)
        except DamagedArtifactError as error:
            assert str(store / CHECKSUMS) in str(error)
        if name != "catalogue":
            assert verify(root, store.stem).sound != different
    finally:
        file.write_bytes(good)
    assert listed(root) == before
