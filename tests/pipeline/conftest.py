import pytest

from pipeline import scan as scan_module


@pytest.fixture
def looks(monkeypatch, tmp_path):
    """How many files were opened to be hashed and probed so far, by whichever process."""
    log = tmp_path / "looks"
    log.touch()
    original = scan_module._look

    def look(file):
        with log.open("a") as lines:
            lines.write(f"{file}\n")
        return original(file)

    monkeypatch.setattr(scan_module, "_look", look)
    return lambda: log.read_text().count("\n")
