import time

import pytest

from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.storage import prefetch, remote
from tests.pipeline.storage.test_remote import uploaded

pytestmark = pytest.mark.usefixtures("own_folder")  # each test fetches for itself


def test_a_second_scan_fetches_only_what_changed(memory, audio_folder, monkeypatch):
    uploaded(memory, audio_folder, "/bucket/audio")
    monkeypatch.setattr(
        "basilar.pipeline.manifests.file_cache.time.time", lambda: time.time_ns() / 1e9 + 10
    )
    first = scan("memory://bucket/audio")
    fetched = []
    fetch = remote.fetch_file
    monkeypatch.setattr(prefetch, "fetch_file", lambda path: fetched.append(path) or fetch(path))
    second = scan("memory://bucket/audio")
    assert second.hash == first.hash
    assert not fetched
    memory.pipe_file("/bucket/audio/a/00.wav", (audio_folder / "b" / "01.wav").read_bytes())
    assert scan("memory://bucket/audio").hash != first.hash
    assert [path.name for path in fetched] == ["00.wav"]
