from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.storage.files import read_table
from basilar.pipeline.store.schema import QUARANTINE_COLUMNS


def test_a_broken_clip_is_one_whose_content_stage_and_reason_are_told(built):
    assert ("id", *Quarantined._fields) == tuple(QUARANTINE_COLUMNS.names)
    (row,) = read_table(built.store / "quarantine.parquet").to_pylist()
    entry = Quarantined(*(row[name] for name in Quarantined._fields))
    assert (row["id"], entry.stage, entry.reason) == ("broken.wav", "decode", "not_audio")
    assert entry.content in built.plan.manifest.contents
    assert entry.message
