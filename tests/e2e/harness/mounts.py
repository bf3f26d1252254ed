"""File systems of a test's own: a small one that can be filled, and a read-only one. Both need root."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IS_ROOT = os.geteuid() == 0


class SmallDisk:
    """A tmpfs of a few kilobytes at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Takes all space but `leave` bytes."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while filler.write(b"\0" * size):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        if leave:
            os.truncate(self._filler, self._filler.stat().st_size - leave)

    def free(self) -> None:
        """Gives back what `fill` took."""
        self._filler.unlink()


@contextmanager
def small_disk(path: Path, size: str = "4m") -> Iterator[SmallDisk]:
    with _mounted(path, f"size={size}"):
        yield SmallDisk(path)


@contextmanager
def read_only_disk(path: Path) -> Iterator[Path]:
    with _mounted(path, "size=1m,ro"):
        yield path


@contextmanager
def _mounted(path: Path, options: str) -> Iterator[None]:
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        # Lazily: a gateway that a failed test left behind is stopped after this.
        subprocess.run(["umount", "--lazy", path], check=True)
