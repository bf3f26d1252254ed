"""A disk that can be filled: a tmpfs with a filler file that can be removed."""

import os
import subprocess
from pathlib import Path


class Tmpfs:
    """A mounted tmpfs. Mounting needs root."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._filler = path / "filler"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)

    def fill(self, leave: int) -> None:
        """Uses up all space but `leave` bytes."""
        stat = os.statvfs(self.path)
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, stat.f_bavail * stat.f_frsize - leave)

    def free(self) -> None:
        """Frees that space."""
        self._filler.unlink()

    @property
    def free_bytes(self) -> int:
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def unmount(self) -> None:
        # Lazily: a process that still has a file open keeps it until it exits.
        subprocess.run(["umount", "-l", self.path], check=True)
