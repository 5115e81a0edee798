import shutil

import pytest

from basilar import FeatureSet
from basilar.dsp import resample
from basilar.pipeline.compute.transform import Transform
from tests.damage import flip, store_of


def test_every_command_has_an_example(basilar):
    for command in ("verify", "reproduce", "why", "diff"):
        code, out, _ = basilar(command, "--help")
        assert code == 0
        assert f"Example: basilar {command}" in " ".join(out.split())


def test_verify_and_repair(basilar, as_json, root, built, tmp_path):
    key = built.plan.key
    code, found = as_json("verify", key[:6], "--root", root, "--sample", 2)
    assert (code, found["sound"], found["problems"]) == (0, True, [])
    assert (found["key"], found["clips"], len(found["sampled"])) == (key, 12, 2)
    found_first = found
    code, out, _ = basilar("verify", key, "--root", root)
    assert code == 0
    assert f"{key} is sound; 12 clips" in out
    file = store_of(root) / "features" / "c" / "1" / "0"
    flip(file)
    code, found = as_json("verify", key, "--root", root)
    assert (code, found["sound"]) == (1, False)
    assert found["problems"][0]["file"] == str(file)
    code, out, _ = basilar("verify", key, "--root", root)
    assert code == 1
    assert f"{file}: 19460 bytes with CRC-32" in out
    lost = ("verify", key, "--root", built.root, "--sample", 2, "--audio-root", tmp_path)
    _, out, _ = basilar(*lost)  # a line for each clip
    missing = [line for line in out.splitlines() if line.endswith(".wav: no file holds it")]
    contents = {
        clip["id"]: clip["content"]
        for clip in FeatureSet.open(built.store).clips.to_dict("records")
    }
    sampled = {contents[name] for name in found_first["sampled"]}
    assert len(missing) == sum(content in sampled for content in contents.values())
    code, found = as_json("verify", key, "--root", root, "--repair", "--workers", 1)
    assert (code, found["sound"], len(found["repaired"]["computed"])) == (0, True, 1)
    assert as_json("verify", key, "--root", root, "--repair")[1]["repaired"] is None


def test_a_repair_that_is_not_possible_exits_with_one(basilar, as_json, root, built, tmp_path):
    flip(store_of(root) / "features" / "c" / "1" / "0")
    for folder in (root / "artifacts" / "resample").iterdir():
        flip(folder / "samples.f32")
    arguments = ("verify", built.plan.key, "--root", root, "--repair", "--audio-root", tmp_path)
    code, out, err = basilar(*arguments)
    assert (code, out) == (1, "")
    assert "no file holds it" in err
    assert "no file holds it" in as_json(*arguments)[1]["error"]


def test_reproduce(basilar, as_json, root, built, tmp_path, monkeypatch):
    key, new = built.plan.key, tmp_path / "new"
    code, found = as_json("reproduce", key[:6], "--root", root, "--into", new, "--workers", 1)
    assert (code, found["verdict"], found["source"]) == (0, "identical", "store")
    assert found["digest"] == found["digest_now"]
    assert found["path"] == str(new / "features" / f"{key}.zarr")
    code, out, _ = basilar("reproduce", key, "--root", root, "--workers", 1)
    assert code == 0
    assert out.startswith(f"identical: {key} from its store, 12 clips")
    original = Transform.represent
    monkeypatch.setattr(
        Transform, "represent", lambda *a, **o: [x + 1e-4 for x in original(*a, **o)]
    )
    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 99)
    code, found = as_json("reproduce", key, "--root", root, "--workers", 1)
    assert (code, found["verdict"], found["differing_clips"]) == (3, "within_tolerance", 12)
    assert 0 < found["largest"] < found["tolerance"]
    code, out, _ = basilar(
        "reproduce", key, "--root", root, "--workers", 1, "--tolerance", 1e-9, "--shard-seconds", 9
    )
    assert code == 1
    assert "different: " in out
    assert "op resample: 1 then, 99 now" in out
    assert "since versions differ; the digest decides" in out
    assert "b/04.wav: from representation on: by 7.6" in out


def test_reproduce_names_missing_and_changed_audio(basilar, as_json, root, built, tmp_path):
    audio = shutil.copytree(built.plan.manifest.root, tmp_path / "audio")
    flip(audio / "b" / "01.wav")
    (audio / "c" / "02.wav").unlink()
    arguments = ("reproduce", built.plan.key, "--root", root, "--audio-root", audio)
    code, found = as_json(*arguments)
    assert (code, found["verdict"]) == (1, "different")
    assert (found["missing"], found["changed"]) == (["c/02.wav"], ["b/01.wav"])
    code, out, err = basilar(*arguments)
    assert (code, out) == (1, f"different: {built.plan.key}\n")
    assert "b/01.wav: its file has changed" in err
    # What is missing alone says nothing of the values.
    flip(audio / "b" / "01.wav")
    code, found = as_json(*arguments)
    assert (code, found["verdict"]) == (1, "not_reproduced")
    assert (found["missing"], found["changed"]) == (["c/02.wav"], [])
    assert basilar(*arguments)[1] == f"not reproduced: {built.plan.key}\n"


def test_reproduce_from_mlflow(as_json, root, built, tmp_path, tracker):
    from basilar.pipeline.tracking import runs

    runs.log_run(store_of(root), built.plan.manifest, tracker, folder=tmp_path / "mlflow")
    shutil.rmtree(root / "features")
    shutil.rmtree(root / "catalogue")
    arguments = ("reproduce", built.plan.key[:9], "--tracking-uri", tracker, "--workers", 1)
    for more in ((), ("--root", root)):
        code, found = as_json(*arguments, *more)
        assert (code, found["verdict"], found["source"]) == (0, "identical", "mlflow")
    assert as_json("reproduce", "ffff", "--tracking-uri", tracker)[0] == 2
    code, found = as_json("reproduce", "ffff", "--tracking-uri", "nonsense://x")
    assert code == 1
    assert "nonsense://x" in found["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "ffff", "--root", "ROOT"], "no feature set with a key that begins with 'ffff'"),
        (["reproduce", "ffff", "--root", "ROOT"], "no feature set with a key that begins with"),
        (["reproduce", "ffff"], "name --root, or --tracking-uri"),
        (["reproduce", "", "--root", "ROOT", "--into", "ROOT"], "is not empty"),
    ],
)
def test_wrong_use_exits_with_two_and_says_what_is_right(basilar, built, arguments, message):
    arguments = [str(built.root) if part == "ROOT" else part for part in arguments]
    code, out, err = basilar(*arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_a_damaged_record_exits_with_one(as_json, root, built):
    shutil.rmtree(root / "features")
    (file,) = (root / "catalogue" / "features").glob("*.json")
    file.write_text("{")
    code, found = as_json("reproduce", built.plan.key, "--root", root)
    assert code == 1
    assert f"{file}: it cannot be read" in found["error"]
