from basilar.dsp import resample
from basilar.pipeline.build.build import Build
from basilar.pipeline.build.explain import explain
from tests.conftest import SMALL
from tests.pipeline.records.test_explain import edited, mel, plan_of


def explained(built, *, root=None, **changes):
    return explain(Build(root=root or built.root, plan=plan_of(built, **changes), tracking_uri=""))


def test_what_is_published_needs_no_explanation(built):
    assert explained(built) == (built.plan.key, {})


def test_nothing_was_published_before(built, tmp_path):
    near, stages = explained(built, root=tmp_path)
    assert near is None
    assert list(stages) == ["decode", "resample", "representation", "normalization"]
    assert stages["decode"] == ["nothing was published under this root before"]


def test_a_changed_representation_explains_only_what_is_below_it(built):
    near, stages = explained(built, **mel(n_mels=9))
    assert near == built.plan.key
    reason = "representation.n_mels: 8 → 9"
    assert stages == {"representation": [reason], "normalization": [reason]}


def test_a_changed_rate_also_explains_why_what_is_not_kept_is_made_again(built):
    _, stages = explained(built, resample={"sample_rate": 4000})
    assert stages["decode"] == [
        "nothing differs: what was made was removed, lacks clips, or is not kept (--keep)"
    ]
    assert stages["resample"] == ["resample.sample_rate: 8000 → 4000"]
    assert "resample.sample_rate: 8000 → 4000" in stages["representation"]


def test_another_normalization_or_label_publishes_again_and_computes_nothing(built):
    _, stages = explained(built, normalization={"kind": "robust"})
    assert stages == {"normalization": ["normalization.kind: standard → robust"]}
    manifest = edited(built.plan.manifest, lambda rows: rows["b/04.wav"].update(label="dog"))
    _, stages = explained(built, manifest=manifest)
    assert stages == {"normalization": ["clips relabelled: b/04.wav: b → dog"]}


def test_a_changed_clip_another_layout_another_shard_size(built, monkeypatch):
    manifest = edited(built.plan.manifest, lambda rows: rows["b/04.wav"].update(sha256="0" * 64))
    _, stages = explained(built, manifest=manifest)
    assert stages["decode"] == ["clips changed: b/04.wav"]
    _, stages = explained(built, store={**SMALL["store"], "codec": "compact"})
    assert stages == {}  # it is published: its key has no layout
    _, stages = explained(built, store={**SMALL["store"], "codec": "compact"}, **mel(n_mels=9))
    assert "store.codec: none → compact" in stages["representation"]
    _, stages = explained(built, shard_seconds=600.0, **mel(n_mels=9))
    assert stages["resample"] == ["shard_seconds: 1.0 → 600.0"]
    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 7)
    _, stages = explained(built)
    assert stages["resample"] == ["op resample: 1 → 7"]
