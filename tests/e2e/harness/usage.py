"""What a process costs according to the kernel: processor time and resident memory."""

import os
import re
from pathlib import Path


def memory(pid: int, field: str = "VmRSS") -> int:
    """Resident memory in bytes: the present value, or with `VmHWM` the peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def forget_peak(pid: int) -> None:
    """Resets `VmHWM` to what is resident now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """Its processor time so far, in steps of 10 ms."""
    # The fields after the name, which is in parentheses and may contain anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
