import re
import subprocess
import sys

import pytest

from basilar import FeatureSet
from tests.conftest import REPOSITORY


def demo(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "basilar.workflows.demo"],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.torture
def test_the_demo_learns_and_then_finds_everything_done(tmp_path):
    first = demo(tmp_path)
    assert first.startswith("built and trained")
    assert float(re.search(r"accuracy +([\d.]+)", first)[1]) > 0.9  # by chance: 0.25
    fs = FeatureSet.open(re.search(r"path +(.+)", first)[1])
    assert fs.key in first
    assert fs.digest in first
    assert len(fs) == 160
    assert fs.quarantine["id"].tolist() == ["drums/broken.wav"]
    assert set(fs.clips["label"]) == {"tones", "chords", "chirps", "drums"}
    suffixes = {name.rsplit(".")[-1] for name in fs.clips["id"]}
    assert suffixes == {"wav", "flac", "aiff", "mp3"}
    second = demo(tmp_path)
    assert second.startswith("all cache hits, nothing was computed")
    assert second.splitlines()[1:] == first.splitlines()[1:]


@pytest.mark.torture
def test_a_tracker_that_does_not_answer_holds_nothing_up(tmp_path):
    """The feature set is yielded by a running task: Luigi asks again until it is complete."""
    assert demo(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9").startswith("built and trained")
