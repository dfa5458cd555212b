"""What a run is computed with: packages, code, processor, memory."""

import hashlib
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from negmerge.execution import memory
from negmerge.version import __version__

PACKAGES = (
    "torch", "numpy", "numba", "safetensors", "transformers", "peft", "scikit-learn", "datasets", "pillow", "kornia",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of negmerge, of Python, and of the packages that numbers come from."""
    found = {"negmerge": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_hash() -> str:
    """Return the SHA-256 of the lines `hash  name` of all files of negmerge's own code, sorted by name."""
    root = Path(__file__).resolve().parents[1]
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n" for path in files
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def machine(device: str) -> dict[str, Any]:
    """Return what the run was computed on; memory in bytes."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
    }


def peak_rss() -> int:
    """Return the largest resident memory, in bytes, of this process or one of its workers."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(memory.peak_rss(), children)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
