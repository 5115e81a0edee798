"""How much memory this process may use."""

import os
from contextlib import suppress
from pathlib import Path


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or what its control groups allow.

    0 where the system does not say (Windows): there, "auto" is "read".
    """
    if not hasattr(os, "sysconf"):
        return 0
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = root / "sys" / "fs" / "cgroup"
    with suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            group = groups / ("memory" if controllers == "memory" else "") / path.lstrip("/")
            while group.is_relative_to(groups):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with suppress(OSError, ValueError):  # not there, or "max"
                        limits.append(int((group / name).read_text()))
                group = group.parent
    return min(limits)
