import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from basilar import Loader
from tests.pipeline.training.test_loader import fs, order

__all__ = ["fs"]  # the fixture
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata calls it
]
# Spawned workers import torch again, which takes seconds: all numbers of them only in the long run.
WORKERS = [
    (0, None),
    *((n, "fork") for n in (1, 2, 4)),
    *(pytest.param(n, "spawn", marks=pytest.mark.torture) for n in (1, 2, 4)),
]


@pytest.fixture(autouse=True, scope="module")
def _torch():
    """Imported when the first of these tests runs: it takes seconds, and makes every fork dear."""
    global DataLoader, IterableBatches, StatefulDataLoader, torch
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch.utils.data import DataLoader
    from torchdata.stateful_dataloader import StatefulDataLoader

    from basilar.pipeline.training.torch import IterableBatches


def by_sampler(loader, kind=None, **options):
    return (kind or DataLoader)(loader, sampler=loader.sampler(), batch_size=None, **options)


def by_iterable(loader, kind=None, **options):
    return (kind or DataLoader)(IterableBatches(loader), batch_size=None, **options)


def how(workers, context):
    return {"num_workers": workers, "multiprocessing_context": context}


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "context"), WORKERS)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_data_loader_gives_the_loaders_batches_whatever_its_workers(
    fs, workers, context, persistent
):
    if persistent and not workers:
        pytest.skip("there are no workers to persist")
    options = {**how(workers, context), "persistent_workers": persistent}
    plain = Loader(fs, batch_size=8, n_frames=16, seed=1)
    expected = [order(plain) for _ in range(2)]
    assert sorted(expected[0]) == sorted(expected[1]) == list(range(40))

    loader = Loader(fs, batch_size=8, n_frames=16, seed=1)
    data = by_sampler(loader, **options)
    assert len(data) == 5
    assert [order(data) for _ in range(2)] == expected

    data = by_iterable(loader, **options)
    epochs = []
    for epoch in range(2):
        data.dataset.set_epoch(epoch)
        epochs.append(order(data))
    assert epochs == expected


@pytest.mark.slow
def test_spawned_workers_give_the_loaders_batches(fs):
    plain = Loader(fs, batch_size=8, n_frames=16)
    data = by_sampler(Loader(fs, batch_size=8, n_frames=16), **how(2, "spawn"))
    assert order(data) == order(plain)


def test_batches_become_tensors_of_the_same_bits(fs):
    loader = Loader(fs, batch_size=8, n_frames=16)
    for made in (by_sampler, by_iterable):
        for batch, plain in zip(made(loader), Loader(fs, batch_size=8, n_frames=16), strict=True):
            assert isinstance(batch["features"], torch.Tensor)
            for name, values in plain.items():
                np.testing.assert_array_equal(batch[name].numpy(), values, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "context"), WORKERS)
@pytest.mark.parametrize("made", [by_sampler, by_iterable])
@pytest.mark.parametrize("taken", [0, 2, 3])
def test_a_resumed_epoch_equals_the_uninterrupted_one(fs, made, workers, context, taken):
    def data():
        loader = Loader(fs, batch_size=6, n_frames=8, seed=2)
        made_of = made(loader, StatefulDataLoader, **how(workers, context))
        (made_of.dataset if made is by_iterable else made_of.sampler).set_epoch(3)
        return made_of

    whole = [order([batch]) for batch in data()]
    assert sorted(clip for batch in whole for clip in batch) == list(range(40))
    interrupted = data()
    iterator = iter(interrupted)
    given = [order([next(iterator)]) for _ in range(taken)]
    state = interrupted.state_dict()
    del iterator
    resumed = data()
    resumed.load_state_dict(state)
    given += [order([batch]) for batch in resumed]
    assert given == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("made", [by_sampler, by_iterable])
def test_after_a_whole_epoch_the_next_one_is_resumed(fs, made, workers):
    plain = Loader(fs, batch_size=8, n_frames=16)
    expected = [order(plain) for _ in range(2)]

    def data():
        return made(Loader(fs, batch_size=8, n_frames=16), StatefulDataLoader, num_workers=workers)

    first = data()
    assert order(first) == expected[0]
    second = data()
    second.load_state_dict(first.state_dict())
    if made is by_iterable:
        if not workers:
            second.dataset.load_state_dict({"epoch": 2, "batches": 1})
            with pytest.raises(ValueError, match=r"call set_epoch\(2\) to go on"):
                next(iter(second.dataset))
        second.dataset.set_epoch(1)
    assert order(second) == expected[1]


def test_ranks_with_workers_share_an_epoch_exactly(fs):
    seen = []
    for rank in range(3):
        loader = Loader(fs, batch_size=4, n_frames=8, seed=9, rank=rank, world_size=3)
        seen += order(by_sampler(loader, **how(2, "fork")))
    assert sorted(seen) == list(range(40))


def test_forking_while_another_thread_reads_does_not_hang(fs):
    stop = threading.Event()

    def read():
        while not stop.is_set():
            fs[0]

    reader = threading.Thread(target=read)
    reader.start()
    try:
        loader = Loader(fs, batch_size=8, n_frames=16)
        assert len(order(by_sampler(loader, **how(2, "fork"), timeout=60))) == 40
    finally:
        stop.set()
        reader.join()


def test_torch_is_not_imported_unless_used():
    code = "import sys, basilar; basilar.FeatureSet, basilar.Loader; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout.split() == [b"False"], done.stderr
