"""Credentials files, written with the gateway's own `hash-password`."""

import subprocess
from functools import cache
from pathlib import Path

from .gateway import binary


@cache
def hash_password(password: bytes, *options: str) -> str:
    """The line that `ocpp-gateway hash-password` prints. `options`: `--slow`, `--hex`."""
    done = subprocess.run([binary(), "hash-password", *options], input=password, capture_output=True, check=True)
    return done.stdout.decode().strip()


def write_credentials(file: Path, hashes: dict[str, str]) -> str:
    """Writes a file with these stations atomically. Returns its path for the configuration."""
    put_in_place(file, "# written by a test\n" + "".join(f"{identity}:{hash}\n" for identity, hash in hashes.items()))
    return str(file)


def put_in_place(file: Path, text: str) -> None:
    """Replaces a file atomically."""
    beside = file.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.rename(file)
