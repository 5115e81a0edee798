from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from basilar import FeatureSet
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.report import describe, examples
from basilar.pipeline.report.examples import Example
from basilar.pipeline.report.listening import Heard


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (["b", "a", "b", "b", "b", "a"], [1, 5, 0, 2, 3]),  # three of each at most
        ([None] * 20, [0, 1, 2, 3, 4, 5]),
        ([f"{i:02}" for i in range(30)] + ["29"], [*range(11), 29]),  # the most common are shown
    ],
)
def test_the_first_of_each_label_are_chosen(labels, rows):
    clips = pa.table({"label": pa.array(labels, pa.string()).dictionary_encode()})
    assert examples.chosen(clips) == (rows, len(set(labels) - {None}))


def test_examples_are_the_stored_features_of_their_first_seconds(built, monkeypatch):
    monkeypatch.setattr(examples, "EXCERPT_SECONDS", 0.2)
    fs = FeatureSet.open(built.store)
    clips = describe.columns(fs.path, "id", "label", "split", "duration")
    heard = Heard(*(np.zeros(len(fs)),) * 3, excerpts={2: np.ones(5, np.float32)})
    one, two = examples.examples(fs, clips, [2, 0], heard)
    assert (one.id, one.label) == (fs.clips["id"][2], fs.clips["label"][2])
    assert np.array_equal(one.features, fs[2][:25])  # a hop of 64 at 8 kHz: 8 ms
    assert one.audio.size == 5
    assert two.audio is None


@pytest.mark.parametrize("kind", ["waveform", "stft", "mel", "mfcc", "cqt", "log_mel"])
def test_every_kind_has_a_picture(kind, noise):
    from basilar.pipeline.compute.transform import Transform

    recipe = Recipe.from_dict({"representation": {"kind": kind}})
    features = Transform(recipe).apply(noise(22050), sample_rate=22050)
    data = examples.picture(Example("a", None, "train", 1.0, features, None), recipe)
    with Image.open(BytesIO(data)) as image:
        assert image.size[0] <= 480
        assert len(np.unique(np.asarray(image))) > (1 if kind == "waveform" else 20)
    assert len(data) < 70_000


@pytest.mark.parametrize(("rate", "plays"), [(8000, True), (100, False), (500_000, False)])
def test_there_is_sound_at_rates_that_browsers_play(rate, plays, noise):
    example = Example("a", None, "train", 1.0, np.zeros((1, 1)), noise(1000))
    found = examples.sound(example, rate)
    assert (found is not None) == plays
    assert examples.sound(example._replace(audio=None), rate) is None
