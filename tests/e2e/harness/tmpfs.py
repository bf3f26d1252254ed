"""A disk so small that it fills up: a tmpfs, with a stone in it that can be taken out."""

import os
import subprocess
from pathlib import Path


class Tmpfs:
    """A mounted tmpfs. Mounting needs root."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._stone = path / "stone"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)

    def fill(self, leave: int) -> None:
        """Takes all room but `leave` bytes."""
        stat = os.statvfs(self.path)
        with self._stone.open("wb") as stone:
            os.posix_fallocate(stone.fileno(), 0, stat.f_bavail * stat.f_frsize - leave)

    def free(self) -> None:
        """Gives the room back."""
        self._stone.unlink()

    @property
    def free_bytes(self) -> int:
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def unmount(self) -> None:
        # Lazily: whoever still has a file open keeps it until it ends.
        subprocess.run(["umount", "-l", self.path], check=True)
