import pytest

from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import SMALL


@pytest.fixture
def two(root, built):
    """A second set in the root, of another window: both keys."""
    plan = Plan(
        Recipe.from_dict(
            {**SMALL, "representation": {**SMALL["representation"], "window": "hamming"}}
        ),
        built.plan.manifest,
        1.0,
    )
    assert luigi_engine.run(
        Build(root=root, plan=plan, tracking_uri=""), workers=1, log=False
    ).succeeded
    return built.plan.key, plan.key


def test_why(basilar, as_json, root, built, two, tmp_path):
    a, b = two
    code, found = as_json("why", a, b[:8], "--root", root)
    assert (code, found["equal"]) == (1, False)
    assert found["recipe"] == {"representation.window": ["hann", "hamming"]}
    code, out, _ = basilar("why", a, "--root", root)
    assert code == 1
    assert out.splitlines()[0] == f"{b[:12]} → {a[:12]}"
    assert "      └─ window: hamming → hann" in out
    assert basilar("why", a, a, "--root", root)[:2] == (0, f"{a[:12]} and {a[:12]} are equal\n")
    (tmp_path / "r.toml").write_text(built.plan.recipe.to_toml())
    built.plan.manifest.write(tmp_path / "m.parquet")
    assert as_json("why", tmp_path / "r.toml", a, "--root", root)[1]["equal"] is True
    assert as_json("why", tmp_path / "r.toml", "--root", root)[1]["equal"] is True
    assert as_json("why", a, tmp_path / "m.parquet", "--root", root)[0] == 0
    assert basilar("why", "mel", "log_mel")[1].startswith("mel → log_mel\n├─ recipe\n")
    for arguments, message in (
        ((tmp_path / "r.toml", tmp_path / "m.parquet"), "have nothing in common"),
        ((a, b), "name --root to look for a key"),
        ((tmp_path / "r.toml",), "to do: name something, or --root"),
        ((a, "ffff", "--root", root), "no feature set"),
    ):
        code, _, err = basilar("why", *arguments)
        assert code == 2
        assert message in " ".join(err.split())


def test_why_there_is_nothing_else(basilar, root, built):
    code, _, err = basilar("why", built.plan.key, "--root", root)
    assert code == 2
    assert "there is no other key to compare" in " ".join(err.split())


def test_explain(basilar, as_json, root, built, tmp_path):
    (tmp_path / "r.toml").write_text(
        built.plan.recipe.to_toml().replace("n_mels = 8", "n_mels = 9")
    )
    built.plan.manifest.write(tmp_path / "m.parquet")
    arguments = ("build", tmp_path / "r.toml", tmp_path / "m.parquet", "--root", root)
    arguments = (*arguments, "--shard-seconds", 1, "--explain")
    code, found = as_json(*arguments, "--dry-run")
    reason = "representation.n_mels: 8 → 9"
    assert code == 0
    assert found["explain"] == {
        "nearest": built.plan.key,
        "stages": {"representation": [reason], "normalization": [reason]},
    }
    code, out, _ = basilar(*arguments, "--dry-run")
    assert f"  why, against {built.plan.key[:12]}:" in out
    assert f"  representation  {reason}" in out
    code, _, err = basilar(*arguments)
    assert code == 2
    assert "add --dry-run" in " ".join(err.split())


def test_diff(basilar, as_json, root, two):
    a, b = two
    code, found = as_json("diff", a[:8], b, "--root", root)
    assert (code, found["equal"], found["clips"]) == (1, False, 11)
    assert len(found["mean"]) == len(found["largest"]) == 8
    assert max(found["largest"]) > max(found["mean"]) > 0
    code, out, _ = basilar("diff", a, b, "--root", root)
    assert code == 1
    assert f"largest difference {max(found['largest']):.6g}, in {found['worst']}" in out
    assert basilar("diff", a, a, "--root", root)[:2] == (0, "equal\n")


def test_diff_refuses_sets_of_other_bins(basilar, root, built):
    plan = Plan(
        Recipe.from_dict({**SMALL, "representation": {"kind": "waveform"}}), built.plan.manifest
    )
    assert luigi_engine.run(
        Build(root=root, plan=plan, tracking_uri=""), workers=1, log=False
    ).succeeded
    code, _, err = basilar("diff", built.plan.key, plan.key, "--root", root)
    assert code == 2
    assert "they have 8 and 1 bins" in " ".join(err.split())
