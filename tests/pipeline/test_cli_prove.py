import json

import pytest

from pipeline import cli
from tests.damage import flip, store_of


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
def as_json(basilar):
    """Run the command with --json: (exit code, the object on standard output)."""

    def run(*arguments):
        code, out, _ = basilar(*arguments, "--json")
        assert out.count("\n") == 1
        return code, json.loads(out)

    return run


def test_every_command_has_an_example(basilar):
    for command in ("verify",):
        code, out, _ = basilar(command, "--help")
        assert code == 0
        assert f"Example: basilar {command}" in " ".join(out.split())


def test_verify_and_repair(basilar, as_json, root, built):
    key = built.plan.key
    code, found = as_json("verify", key[:6], "--root", root, "--sample", 2)
    assert (code, found["sound"], found["problems"]) == (0, True, [])
    assert (found["key"], found["clips"], len(found["sampled"])) == (key, 12, 2)
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
