"""A disk that a test can hang, break and cut the power of: the gateway's syncs go through `disk_shim.c` (LD_PRELOAD).

Killing a process loses nothing that it has written, because the kernel still has it; only a power cut shows whether it was synced.
`power_cut` simulates that: every file is truncated to what was synced of it. Knows nothing of the log's format.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("disk_shim.c")
COMPILER = shutil.which("cc")


class Disk:
    """Control over the disk of one gateway. `environment` is for its process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        library = folder / "disk_shim.so"
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "DISK_SHIM": str(folder)}

    @contextmanager
    def holding(self, part: str = "") -> Iterator[None]:
        """Inside the block, a sync hangs if the file's path contains `part`; at its end, the sync completes."""
        with self._switch("hold", part):
            yield

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Inside the block, a sync fails with EIO."""
        with self._switch("fail"):
            yield

    @contextmanager
    def _switch(self, name: str, content: str = "") -> Iterator[None]:
        switch = self.folder / name
        # Atomically: an empty file would mean something else.
        written = self.folder / f"{name}.new"
        written.write_text(content)
        written.rename(switch)
        try:
            yield
        finally:
            switch.unlink()

    def syncs(self) -> int:
        """How many syncs of files have succeeded."""
        return len(self._lines())

    def _lines(self) -> list[str]:
        log = self.folder / "synced"
        return log.read_text().splitlines() if log.exists() else []

    def power_cut(self, data: Path) -> int:
        """Simulates a power cut on a gateway that was killed: truncates every file below `data` to what was synced of it.

        Returns how many bytes were lost. A file that was never synced is emptied.
        """
        durable: dict[int, int] = {}
        for line in self._lines():
            inode, size = line.split()
            durable[int(inode)] = int(size)
        lost = 0
        for path in data.rglob("*"):
            if not path.is_file():
                continue
            status = path.stat()
            keep = min(status.st_size, durable.get(status.st_ino, 0))
            lost += status.st_size - keep
            os.truncate(path, keep)
        return lost
