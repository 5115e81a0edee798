import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline.report import listening


@pytest.fixture
def fs(built):
    return FeatureSet.open(built.store)


def listen(fs, plan, **settings):
    return listening.listen(fs.path, plan, n_clips=len(fs), **settings)


def test_levels_are_those_of_the_audio(fs, built):
    heard = listen(fs, built.plan, excerpts=[0, 3])
    path_of = dict(zip(*map(built.plan.manifest.column, ("id", "path")), strict=True))
    for row, clip in enumerate(fs.clips.itertuples()):
        if clip.sample_rate == 8000:  # the recipe's own rate
            y, _ = sf.read(built.plan.manifest.root / path_of[clip.id])
            assert heard.rms[row] == pytest.approx(np.sqrt((y**2).mean()), rel=1e-5)
            assert heard.peak[row] == pytest.approx(np.abs(y).max(), rel=1e-6)
    assert np.isfinite(heard.rms).all()
    assert (heard.full == 0).all()
    assert heard.seconds == pytest.approx(fs.clips["duration"].sum(), rel=1e-3)
    assert heard.problems == []
    assert set(heard.excerpts) == {0, 3}


def test_what_was_not_kept_is_decoded_once_more(fs, built, root, tmp_path):
    kept = listen(fs, built.plan)
    shutil.rmtree(root / "artifacts" / "resample")
    again = listen(FeatureSet.open(root / "features" / built.store.name), built.plan)
    assert again.rms.tolist() == kept.rms.tolist()
    gone = replace(built.plan, manifest=replace(built.plan.manifest, root=tmp_path / "gone"))
    silent = listen(FeatureSet.open(root / "features" / built.store.name), gone)
    assert np.isnan(silent.rms).all()
    assert "is not there" in silent.problems[0]


def test_a_limit_ends_after_a_whole_shard(fs, built):
    some = listen(fs, built.plan, seconds=0.01)
    n_heard = int(np.isfinite(some.rms).sum())
    assert 0 < n_heard < len(fs)
    assert np.isfinite(some.rms[:n_heard]).all()


def test_a_sound_is_a_file_of_bounded_size(noise):
    y = noise(400_000)
    data, seconds = listening.encoded(3 * y, 44_100)
    assert len(data) <= listening.EXCERPT_BYTES + 44
    assert seconds == listening.EXCERPT_BYTES / 2 / 44_100
    from io import BytesIO

    back, rate = sf.read(BytesIO(data), dtype="float32")
    assert (rate, back.size) == (44_100, round(seconds * 44_100))
    assert back == pytest.approx(np.clip(3 * y[: back.size], -1, 1), abs=1e-4)
