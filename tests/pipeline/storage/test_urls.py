import pickle
from pathlib import Path

import pytest

from basilar.pipeline import storage
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.storage.urls import WorkingCopy
from tests.conftest import write_clips

pytestmark = pytest.mark.usefixtures("own_folder")  # each test fetches for itself


def test_a_folder_that_is_called_as_working_copies_are_is_no_object_store(tmp_path):
    audio = write_clips(tmp_path / "a" / ".objects" / "git" / "audio")
    assert not storage.is_remote(audio)
    assert storage.name(audio) == str(audio)
    assert storage.exists(audio)
    assert len(scan(audio)) == 12


def test_an_object_may_be_called_as_working_copies_are():
    place = storage.place("memory://bucket/.objects/git/audio")
    assert storage.name(place / "a.wav") == "memory://bucket/.objects/git/audio/a.wav"


@pytest.mark.parametrize(
    "derive",
    [
        lambda p: p / "x" / "y",
        lambda p: p.parent,
        lambda p: p.with_name("z"),
        lambda p: p.with_suffix(".json"),
        lambda p: p.absolute(),
        lambda p: p.resolve(),
        lambda p: p.parents[0],
        lambda p: pickle.loads(pickle.dumps(p)),  # noqa: S301  # our own
        lambda p: storage.place(p),
        lambda p: next(iter((p.mkdir(parents=True), (p / "c").touch(), p.glob("*"))[2])),
        lambda p: next(iter((p.mkdir(parents=True), (p / "d").touch(), p.iterdir())[2])),
    ],
)
def test_what_is_derived_from_a_working_copy_is_one(derive):
    place = storage.place("memory://bucket/roots/a")
    derived = derive(place)
    assert isinstance(derived, WorkingCopy)
    assert storage.name(derived).startswith("memory://bucket/roots")
    assert storage.place(storage.name(derived)) == derived


def test_two_folders_of_working_copies_do_not_mix(tmp_path):
    here, there = storage.place("memory://b/a"), storage.cached("memory://b/a", tmp_path)
    assert here != there
    assert storage.name(here) == storage.name(there) == "memory://b/a"
    assert storage.is_remote(there / "zarr.json")


def test_urls_have_places_and_places_urls():
    path = storage.place("s3://bucket/a/b")
    assert path.is_absolute()
    assert storage.is_remote(path)
    assert storage.name(path / "c") == "s3://bucket/a/b/c"
    assert storage.place(Path("s3://bucket/a/b")) == path  # pathlib makes one slash of two
    assert storage.place("a/b") == Path("a/b")
    assert storage.name(Path("a/b")) == "a/b"
    assert storage.shown(f"in {path}/c: x") == "in s3://bucket/a/b/c: x"


@pytest.mark.parametrize("url", ["ftp://host/a", "s3://", "s3://bucket/../other"])
def test_what_is_no_place_is_refused(url):
    with pytest.raises(ValueError, match=r"allowed are|write s3"):
        storage.place(url)
