"""Audio of a remote root, fetched while the files before it are decoded."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from basilar.pipeline.storage.remote import TRANSFERS, T, fetch_file
from basilar.pipeline.storage.urls import is_remote, name, place_below, scratch_folder

_BATCH = 16  # files of audio that are fetched while as many are decoded


def read_ahead(
    root: Path, items: Sequence[T], path_of: Callable[[T], str]
) -> Iterator[tuple[Path, Sequence[T]]]:
    """Items whose files are below `root`, some at a time, and the folder that these are in now.

    Of a local root, all at once. Of a remote one, the next files are fetched meanwhile, and files
    are removed when the next items are asked for.
    """
    if not is_remote(root):
        yield root, items
        return
    batches = [items[i : i + _BATCH] for i in range(0, len(items), _BATCH)]
    with (
        tempfile.TemporaryDirectory(dir=scratch_folder()) as name_of_folder,
        contextlib.ExitStack() as s,
    ):
        pool = ThreadPoolExecutor(TRANSFERS)
        s.callback(pool.shutdown, cancel_futures=True)

        def begin(number: int) -> Any:
            here = place_below(name(root), Path(name_of_folder) / str(number))
            here.mkdir(parents=True)
            paths = dict.fromkeys(path_of(item) for item in batches[number])
            return here, [pool.submit(fetch_file, here / path) for path in paths]

        coming = [begin(0)] if batches else []
        for number, batch in enumerate(batches):
            here, fetching = coming.pop()
            if number + 1 < len(batches):
                coming.append(begin(number + 1))
            for file in fetching:
                file.result()
            yield here, batch
            shutil.rmtree(Path(name_of_folder) / str(number))
