"""The batches of a Loader as PyTorch's IterableDataset; the only module that imports torch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from basilar.pipeline.training.loader import Batch, Loader


class IterableBatches(IterableDataset[Batch]):
    """Use as `DataLoader(IterableBatches(loader), batch_size=None, num_workers=4)`.

    Worker processes take turns at the batches, so that their order does not depend on how many
    there are. Call `set_epoch` before each epoch, also before one that resumes from a state, as
    with PyTorch's DistributedSampler: persistent worker processes are told through shared
    memory. `state_dict` and `load_state_dict` are what torchdata's StatefulDataLoader asks
    each worker for.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._given = 0  # batches that this worker has given of the epoch
        self._resume: dict[str, Any] = {"epoch": 0, "batches": 0}

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration gives."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        epoch = int(self._epoch)
        if self._resume["epoch"] > epoch:
            raise ValueError(
                f"the state is of epoch {self._resume['epoch']}, and epoch {epoch} is asked for; "
                f"call set_epoch({self._resume['epoch']}) to go on, or with a later one"
            )
        self._given = self._resume["batches"] if self._resume["epoch"] == epoch else 0
        self._resume = {"epoch": 0, "batches": 0}
        for number in range(worker + self._given * workers, len(self.loader), workers):
            self._given += 1
            yield self.loader[epoch, number]

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many of its batches this worker has given."""
        return {"epoch": int(self._epoch), "batches": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the epoch of a `state_dict`, with the same number of workers."""
        self._resume = dict(state)
