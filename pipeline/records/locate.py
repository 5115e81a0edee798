"""Find where the audio of a recorded manifest is now."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from basilar.pipeline import storage
from basilar.pipeline.errors import BasilarError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import contents
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from basilar.pipeline.progress import Progress


class MissingAudioError(BasilarError, OSError):
    """Clips whose audio cannot be found: it is `missing`, or its file has `changed`."""

    def __init__(self, root: Path, missing: list[str], changed: list[str]) -> None:
        self.missing, self.changed = missing, changed
        lines = [
            f"{clip if clip.isprintable() else ascii(clip)}: {what}"
            for clips, what in ((changed, "its file has changed"), (missing, "no file holds it"))
            for clip in clips
        ]
        more = f"\n  … and {len(lines) - 50} more" if len(lines) > 50 else ""
        super().__init__(
            f"{storage.name(root)}: the audio of {len(lines)} clips is not there; restore it, "
            "or name the folder it is in with --audio-root\n  " + "\n  ".join(lines[:50]) + more
        )


def locate(
    manifest: Manifest,
    audio_root: Path | None = None,
    *,
    needed: Collection[str] | None = None,
    progress: Progress = lambda items, total: items,
) -> Manifest:
    """The manifest with the current paths of its files; moved files are found by content.

    Searches below `audio_root`, by default the manifest's own root, and reads each file, even if it
    is in the cache. `needed` are the contents that must be found, by default all. Raises
    MissingAudioError, which names the clips.
    """
    root = storage.place(audio_root or manifest.root).absolute()
    paths, hashes = manifest.column("path"), manifest.column("sha256")
    every = range(len(manifest))
    rows = [i for i in every if needed is None or manifest.contents[i] in needed]
    if storage.is_remote(root):
        objects = storage.list_objects(root)
        at_place = {paths[i] for i in rows if paths[i] in objects}
    else:
        at_place = {paths[i] for i in rows if (root / paths[i]).is_file()}
    there = contents(root, at_place, rehash=True, progress=progress)
    lost = [i for i in rows if there.get(paths[i]) != hashes[i]]
    if lost:
        found = contents(root, rehash=True, progress=progress) if storage.is_folder(root) else {}
        path_of = {sha256: path for path, sha256 in found.items()}
        ids = manifest.column("id")
        if gone := [i for i in lost if hashes[i] not in path_of]:
            changed = [ids[i] for i in gone if paths[i] in at_place]
            missing = [ids[i] for i in gone if paths[i] not in at_place]
            raise MissingAudioError(root, missing, changed)
        for i in lost:
            paths[i] = path_of[hashes[i]]
    field = CLIP_COLUMNS.field("path")
    index = CLIP_COLUMNS.get_field_index(field.name)
    table = manifest.table.set_column(index, field, pa.array(paths, field.type))
    return replace(manifest, root=root, table=table)
