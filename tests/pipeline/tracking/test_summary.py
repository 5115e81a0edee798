from basilar.pipeline.tracking import summary


def test_names_of_splits_become_names_of_metrics(logged):
    fs, _, _ = logged
    fs.clips["split"] = "hold out: 1"
    assert summary.metrics(fs)["clips_hold_out__1"] == 12
