import os

import pytest

from basilar.pipeline.store.reader import usable_memory


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "5000"}, 5000),
        ("0::/a/b", {"a/b/memory.max": "4000", "a/memory.max": "5000"}, 4000),
        ("0::/", {"memory.max": "3000"}, 3000),
        ("4:memory:/of/host\n0::/", {"memory/memory.limit_in_bytes": "6000"}, 6000),
        ("5:cpu:/\n0::/", {}, None),
        ("", {}, None),
    ],
)
def test_memory_is_what_control_groups_leave(tmp_path, group, files, expected):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(group)
    for name, limit in files.items():
        file = tmp_path / "sys" / "fs" / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    machine = usable_memory(tmp_path / "nothing")
    assert machine == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_memory(tmp_path) == (expected or machine)
    assert 0 < usable_memory() <= machine
