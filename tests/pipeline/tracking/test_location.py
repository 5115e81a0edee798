import pytest

from basilar.pipeline import storage
from basilar.pipeline.tracking import runs
from basilar.pipeline.tracking.location import embedded_tracking_uri
from tests.pipeline.tracking.test_runs import EMPTY


def test_the_tracker_of_a_remote_root_must_be_named(basilar, memory, audio_folder, tmp_path):
    with pytest.raises(ValueError, match=r"memory://bucket/root: .*--tracking-uri"):
        embedded_tracking_uri(storage.place("memory://bucket/root"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r#x", "r x", "ré", "r&a=b;c", "r:y@z"])
def test_roots_of_any_name_hold_their_own_tracker(logged, tmp_path, name):
    fs, _, _ = logged
    root = tmp_path / name
    run_id = runs.log_run(fs.path, EMPTY, embedded_tracking_uri(root), folder=root / "mlflow")
    assert (root / "mlflow" / "mlflow.db").stat().st_size > 0
    assert (root / "mlflow" / "artifacts" / run_id / "artifacts" / "recipe.toml").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"root", name}


@pytest.mark.parametrize("name", ["r?q=1", "r%20x"])
def test_roots_that_a_uri_cannot_name_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"with \? or % in its name; use another root"):
        embedded_tracking_uri(tmp_path / name)
