import fsspec
import pytest

from basilar.pipeline import text
from basilar.pipeline.manifests import probe as facts_module
from basilar.pipeline.storage import urls


@pytest.fixture
def looks(monkeypatch, tmp_path):
    """How many files were opened to be hashed and probed so far, by whichever process."""
    log = tmp_path / "looks"
    log.touch()
    original = facts_module._look

    def look(file):
        with log.open("a") as lines:
            lines.write(f"{file}\n")
        return original(file)

    monkeypatch.setattr(facts_module, "_look", look)
    return lambda: log.read_text().count("\n")


@pytest.fixture
def own_folder(monkeypatch):
    """Each test fetches for itself."""
    monkeypatch.setattr(urls, "_made", {})
    yield
    urls._forget()


@pytest.fixture
def memory(own_folder):
    """The store of `memory://bucket`, empty."""
    store = fsspec.filesystem("memory")
    store.rm("/bucket", recursive=True) if store.exists("/bucket") else None
    store.mkdirs("/bucket")
    return store


@pytest.fixture
def debug():
    """The command line that is left of one with --debug."""
    yield text.begin(["build", "--debug", "a", "--", "--debug"])
    text.begin([])
