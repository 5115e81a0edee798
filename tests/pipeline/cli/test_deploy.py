import json
import shutil

import numpy as np
import pytest

from basilar import Bundle, FeatureSet
from basilar.pipeline import cli
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.compute import canary
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from tests.pipeline.store.test_publish import LOG_MEL, recipe_of


@pytest.fixture
def basilar(capsys, monkeypatch):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["basilar", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return run


@pytest.fixture
def built(audio_folder, tmp_path, tracker):
    plan = Plan(recipe_of(LOG_MEL), scan(audio_folder), 2.0)
    build = Build(root=tmp_path / "root", plan=plan, tracking_uri=tracker)
    assert luigi_engine.run(build, workers=1).succeeded
    return build


def test_a_bundle_is_made_and_checked(basilar, built, tmp_path):
    folder, key = tmp_path / "bundle", built.plan.key
    code, out, _ = basilar("bundle", key[:6], "--root", built.root, "-o", folder)
    assert code == 0
    assert f"{folder}: the bundle of {key}, 0." in out
    fs = FeatureSet.open(built.store)
    assert Bundle.load(folder).key == fs.key
    code, out, _ = basilar("check-bundle", folder)
    assert code == 0
    assert out.count("identical") == 6
    code, out, _ = basilar("check-bundle", folder, "--json")
    result = json.loads(out)
    assert (code, result["verdict"], result["key"]) == (0, "identical", key)
    assert result["golden"][0] == {
        "name": "canary at 44100 Hz",
        "identical": True,
        "difference": 0.0,
    }


def test_the_audio_moved(basilar, built, tmp_path, audio_folder):
    arguments = ("bundle", built.plan.key, "--root", built.root, "-o", tmp_path / "bundle")
    audio_folder.rename(tmp_path / "moved")
    code, _, err = basilar(*arguments)
    assert code == 2
    assert "say where the audio is now (--audio-root), or leave it out (--clips 0)" in err
    assert basilar(*arguments, "--audio-root", tmp_path / "moved")[0] == 0
    shutil.rmtree(tmp_path / "bundle")
    assert basilar(*arguments, "--clips", 0)[0] == 0
    code, out, _ = basilar(*arguments, "--clips", 0, "--json")
    assert code == 2
    assert "bundle: there already; name another folder" in json.loads(out)["error"]


def test_what_is_wrong_with_a_bundle_is_said(basilar, built, tmp_path):
    folder = tmp_path / "bundle"
    basilar("bundle", built.plan.key, "--root", built.root, "-o", folder, "--clips", 0)
    (folder / "scale.npy").write_bytes(b"")
    code, out, _ = basilar("check-bundle", folder, "--json")
    assert code == 1
    assert "damaged or missing: scale.npy" in json.loads(out)["error"]
    code, _, err = basilar("check-bundle", tmp_path)
    assert code == 2
    assert "no bundle here" in err


def test_a_golden_vector_that_moved(basilar, built, tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    basilar("bundle", built.plan.key, "--root", built.root, "-o", folder, "--clips", 0)
    computed = Bundle._compute
    for factor, code, verdict, said in (
        (1 + 1e-6, 3, "within_tolerance", "within the tolerance, by up to"),
        (1.1, 1, "different", "MOVED, by up to"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(
                *(Bundle, "_compute"),
                lambda bundle, vector, by=factor: computed(bundle, vector) * np.float32(by),
            )
            patched.setattr(canary, "compare", lambda *_, **__: "")  # which would refuse the second
            found, out, _ = basilar("check-bundle", folder, "--json")
            assert (found, json.loads(out)["verdict"]) == (code, verdict)
            assert said in basilar("check-bundle", folder)[1]
