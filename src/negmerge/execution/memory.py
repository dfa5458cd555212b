"""How much memory a process has used."""

import resource
import sys
from pathlib import Path


def peak_rss() -> int:
    """Return the largest resident memory of this process, in bytes.

    On Linux from /proc: what `getrusage` says includes the process that started this one, however large that was.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
