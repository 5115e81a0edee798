import pytest


@pytest.fixture
def elsewhere(monkeypatch, tmp_path, tracker):
    """Work in a folder of its own, with a tracker of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker)
