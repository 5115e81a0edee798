"""What tells how far work is hands every item on, in order, and is asked for each."""

import pytest

from basilar.pipeline.console import progress
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.records.locate import locate


def test_work_tells_how_many_items_it_has_and_uses_what_comes_out(audio_folder):
    asked = []

    def count(items, total):
        taken = 0
        for item in items:
            taken += 1
            yield item
        asked.append((taken, total))

    manifest = scan(audio_folder, progress=count)
    assert asked == [(12, 12)]
    assert locate(manifest, progress=count).hash == manifest.hash
    assert asked == [(12, 12)] * 2


@pytest.mark.parametrize("items", [[], [1], list(range(100))])
def test_what_commands_show_is_such_a_function(items):
    assert list(progress("doing")(iter(items), len(items))) == items
