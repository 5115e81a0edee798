import json

from tests.dsp import canary


def test_numbers_change_only_with_their_version():
    stored = json.loads(canary.FILE.read_text())
    now = canary.canaries()
    assert now.keys() == stored.keys(), "a kind came or went: run python -m tests.dsp.canary"
    for name, entry in now.items():
        if entry["version"] == stored[name]["version"]:
            assert entry["sha256"] == stored[name]["sha256"], (
                f"{name} computes other numbers under the same version: raise its version "
                "and run python -m tests.dsp.canary, or find out why it changed"
            )
        else:
            assert entry["sha256"] != stored[name]["sha256"], (
                f"{name} has a new version and the same numbers"
            )
