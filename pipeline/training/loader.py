"""Batches of a feature set for training: shuffled, shared out, repeatable and resumable.

The order of an epoch and the place of every crop are a function of (seed, epoch) alone, the same on
every machine and NumPy, and batch `number` of an epoch can be made by itself. Ranks take disjoint
parts of one order, workers take turns at the batches of their rank, so that neither how many
workers there are nor where training was interrupted changes what is trained on.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline.training.feature_set import FeatureSet

Batch = dict[str, NDArray[Any]]
BatchIndex = tuple[int, int]  # an epoch, and the number of a batch in it
EpochOrder = tuple[
    NDArray[np.int64], NDArray[np.int64]
]  # items in order, first frames of their crops
Augment = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


# What changes nothing of which items a batch holds: a state may be loaded with others of these.
_NOT_IN_IDENTITY = {"normalize", "augment", "pad_value"}


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of NumPy arrays, an epoch each time it is iterated over.

    A batch is a dict: `features` (batch, frames, bins), float32 and normalized, or as stored with
    `normalize` off, or where the recipe normalizes nothing; `n_frames`, how many of the frames are
    the clip's own, `pad_value` follows; `mask` (batch, frames), true for those; `clip`, the row in
    `fs`; `start`, the crop's first frame; `label`, the code of the label in `fs.labels`, -1 for
    none.

    With `n_frames`, each clip gives `crops_per_clip` crops of as many frames from random places;
    without, whole clips, padded to the longest of the batch. With `shuffle` the order is random:
    over the whole set, or, with a `window`, shard file by shard file in random order, the clips
    of `window` files mixed, which a disk or an object store serves faster. Without `shuffle`,
    clips come in content order, and crops from their middle, or evenly from all of them: for
    evaluation.

    Of `world_size` ranks, each gets its own part of every epoch. All clips are given once an epoch;
    `drop_last` leaves out as many as it takes for all ranks to have equally many full batches.
    `augment` takes the frames of one item (frames, bins) and a `numpy.random.Generator`, and
    returns an array of the same shape.

    With PyTorch: `DataLoader(loader, sampler=loader.sampler(), batch_size=None, num_workers=4)`.
    Its epochs are the loader's: `set_epoch`, `state_dict` and `load_state_dict` hold for them. With
    worker processes, which are ahead, only torchdata's StatefulDataLoader knows what was trained
    on. Raises ValueError for numbers out of range, and where there is no batch.
    """

    fs: FeatureSet
    _: KW_ONLY
    batch_size: int = 32
    n_frames: int | None = None
    crops_per_clip: int = 1
    shuffle: bool = True
    window: int | None = None
    seed: int = 0
    normalize: bool = True
    augment: Augment | None = None
    pad_value: float = 0.0
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_frames", "crops_per_clip", "window", "world_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: it must be 1 or more")
        if self.n_frames is None and self.crops_per_clip != 1:
            raise ValueError(
                f"crops_per_clip = {self.crops_per_clip} needs n_frames, a crop's length"
            )
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: it must be 0 or more")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank = {self.rank}: it must be 0 to {self.world_size - 1}, "
                f"for world_size = {self.world_size}"
            )
        if not len(self.fs):
            raise ValueError(f"{self.fs.path}: no clip is selected; look at the values of fs.clips")
        if not len(self):
            raise ValueError(
                f"rank {self.rank} of {self.world_size} has no batch: "
                f"{len(self.fs) * self.crops_per_clip} items, batch_size = {self.batch_size}, "
                f"drop_last = {self.drop_last}; lower one of them"
            )

    @cached_property
    def _sampler(self) -> "Sampler":
        return Sampler(len(self))

    @cached_property
    def _orders(self) -> dict[int, EpochOrder]:
        """The order of the epoch that was asked for last."""
        return {}

    def __repr__(self) -> str:
        length = "whole clips" if self.n_frames is None else f"crops of {self.n_frames} frames"
        rank = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        order = "shuffled" if self.shuffle else "in order"
        return (
            f"Loader: {len(self.fs)} clips, {len(self)} batches of {self.batch_size} an epoch, "
            f"{length}, {order}{rank}\n  key   {self.fs.key}"
        )

    def __len__(self) -> int:
        """Batches of one epoch of this rank."""
        first, end = self._share()
        return -(-(end - first) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch; after `load_state_dict`, the rest of the interrupted one.

        An interrupted epoch starts again.
        """
        return (self[place] for place in self._sampler)

    def __getitem__(self, place: BatchIndex) -> Batch:
        """A batch of any epoch: `loader[epoch, number]`."""
        if not isinstance(place, tuple):
            raise TypeError(
                f"loader[{place}]: write loader[epoch, number]; PyTorch needs "
                "DataLoader(loader, sampler=loader.sampler(), batch_size=None)"
            )
        epoch, number = place
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        items, starts = self._order(epoch)
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        clips, starts = items[part] // self.crops_per_clip, starts[part]
        n_frames = self.fs.n_frames[clips] - starts
        length = self.n_frames or int(n_frames.max())
        n_frames = np.minimum(n_frames, length)
        features = self.fs.crops(
            clips, starts, length, normalize=self.normalize, pad_value=self.pad_value
        )
        if self.augment is not None:
            for x, frames, item in zip(features, n_frames, items[part], strict=True):
                rng = np.random.default_rng([self.seed, epoch, item])
                augmented = self.augment(x[:frames], rng)
                if augmented.shape != x[:frames].shape:
                    raise ValueError(
                        f"augment made {augmented.shape} of {x[:frames].shape}: shapes must stay"
                    )
                x[:frames] = augmented
        return {
            "features": features,
            "n_frames": n_frames,
            "mask": np.arange(length) < n_frames[:, None],
            "clip": clips,
            "start": starts,
            "label": self.fs.label_codes[clips],
        }

    def sampler(self) -> "Sampler":
        """What PyTorch's DataLoader asks for the places of batches, epoch after epoch.

        The loader's own: one that is iterated over beside it moves it, too.
        """
        return self._sampler

    def set_epoch(self, epoch: int) -> None:
        """Continue with the first batch of this epoch."""
        self._sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position of the iteration, in plain values, to be saved with the model."""
        return {**self._sampler.state_dict(), "of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`. Raises ValueError if it is of another loader."""
        for name, mine in self._identity().items():
            if state["of"].get(name) != mine:
                raise ValueError(
                    f"the state is of a loader with {name} = {state['of'].get(name)!r}; "
                    f"this one has {mine!r}, and would give other batches"
                )
        self._sampler.load_state_dict(state)

    def _identity(self) -> dict[str, Any]:
        """What the batches depend on: the clips, and all settings but those that are left out."""
        names = [field.name for field in fields(self) if field.name != "fs"]
        return {
            "key": self.fs.key,
            "clips": hashlib.sha256(self.fs.rows.tobytes()).hexdigest()[:32],
            **{name: getattr(self, name) for name in names if name not in _NOT_IN_IDENTITY},
        }

    def _share(self) -> tuple[int, int]:
        """The part of an epoch's order that is this rank's."""
        total = len(self.fs) * self.crops_per_clip
        if self.drop_last:
            total -= total % (self.world_size * self.batch_size)
        return (self.rank * total // self.world_size, (self.rank + 1) * total // self.world_size)

    def _order(self, epoch: int) -> EpochOrder:
        """The items of this rank in the order of an epoch, and the first frames of their crops."""
        order = self._orders.get(epoch)
        if order is None:
            order = self._make_order(epoch)
            self._orders.clear()
            self._orders[epoch] = order
        return order

    def _make_order(self, epoch: int) -> EpochOrder:
        total = len(self.fs) * self.crops_per_clip
        # The raw output of a bit generator stays the same in every NumPy; permutation() may not.
        random = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw
        keys, crops, files = random(total), random(total), random(int(self.fs.files.max()) + 1)
        first, end = self._share()
        if not self.shuffle:
            items = np.arange(first, end)
        elif self.window is None:
            items = np.argsort(keys, kind="stable")[first:end]
        else:
            place_of_file = np.argsort(np.argsort(files, kind="stable"))
            place = np.repeat(place_of_file[self.fs.files], self.crops_per_clip)
            items = np.lexsort((keys, place))[first:end]
            items = items[np.lexsort((keys[items], place[items] // self.window))]
        if self.n_frames is None:
            return items, np.zeros_like(items)
        room = np.maximum(self.fs.n_frames[items // self.crops_per_clip] - self.n_frames, 0)
        if not self.shuffle:  # spread evenly; the only one in the middle
            crop, parts = items % self.crops_per_clip, 2 * self.crops_per_clip
            return items, room * (2 * crop + 1) // parts
        share = (crops[items] >> np.uint64(11)) * 2.0**-53  # of all starts there are, below 1
        return items, (share * (room + 1)).astype(np.int64)


class Sampler:
    """The places of an epoch's batches, in order; each time it is iterated over, the next epoch's.

    It counts the epochs, so that nothing has to be told to PyTorch's worker processes. An
    interrupted epoch starts again, unless `load_state_dict` says where to resume.
    """

    def __init__(self, n_batches: int) -> None:
        self.epoch = 0
        self._given = 0  # batches of the epoch, so far
        self._skip = 0
        self._n_batches = n_batches

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[BatchIndex]:
        begin, self._skip = self._skip, 0
        for number in range(begin, self._n_batches):
            self._given = number + 1
            yield self.epoch, number
        self.set_epoch(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Continue with the first batch of this epoch."""
        self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many of its batches have been given."""
        return {"epoch": self.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`."""
        self.set_epoch(state["epoch"])
        self._given = self._skip = state["batches"]
