from pathlib import Path

import pytest

from basilar.pipeline import storage

pytestmark = pytest.mark.usefixtures("own_folder")  # each test fetches for itself


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
