"""The record of a run: versions, machine, seeds, hashes of every input and output, durations, peak memory."""

import json
import os
import platform
import resource
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from negmerge.checkpoints import hash_file, write_bytes_atomic
from negmerge.errors import InputError, listing
from negmerge.execution import memory
from negmerge.version import __version__

PACKAGES = ("torch", "numpy", "safetensors", "scikit-learn", "datasets", "pillow")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers come from."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


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


def file_entry(path: Path, shown: str) -> dict[str, Any]:
    """Return the size and hash of a file, under the name that the record shows."""
    return {"path": shown, "bytes": path.stat().st_size, "hash": hash_file(path)}


def write_record(directory: Path, record: Mapping[str, Any], outputs: Iterable[Path]) -> None:
    """Write `record.json`, with the entries of `outputs` (paths below `directory`, sorted)."""
    entries = [file_entry(path, path.relative_to(directory).as_posix()) for path in sorted(outputs)]
    whole = {"format": 1, "negmerge": __version__, **record, "outputs": entries}
    write_bytes_atomic(directory / "record.json", json.dumps(whole, indent=1).encode())


def rewrite_record(directory: Path, *, purged: list[str] | None = None, **facts: Any) -> None:
    """Add facts to the record of a finished run; outputs that are `purged` are no longer among its outputs."""
    file = directory / "record.json"
    record = json.loads(file.read_text())
    changed = {**record, **facts}
    if purged is not None:
        kept = [entry for entry in record["outputs"] if entry["path"] not in purged]
        changed |= {"purged": purged, "outputs": kept}
    if changed != record:
        write_bytes_atomic(file, json.dumps(changed, indent=1).encode())


def verify_run(directory: Path) -> int:
    """Compare every file that a run's record names with its recorded hash, and return how many were compared.

    Outputs must be there; of the inputs, the data files in `inputs.json` among them, those that are still there must be
    unchanged. Raises InputError that lists
    each file that differs or is gone.
    """
    file = directory / "record.json"
    try:
        record = json.loads(file.read_text())
        outputs, inputs = record["outputs"], record["inputs"]
    except OSError:
        raise InputError(f"{directory} has no record.json; give the directory of a finished run") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} is damaged; run `negmerge run` with the same config again") from None
    wrong = []
    compared = 0
    for entry, path, needed in [
        *((entry, directory / entry["path"], True) for entry in outputs),
        *((entry, Path(entry["path"]), False) for entry in [*inputs, *_data_files(directory)]),
    ]:
        if not path.is_file():
            if needed:
                wrong.append(f"{entry['path']}: gone")
            continue
        compared += 1
        found = hash_file(path)
        if found != entry["hash"]:
            wrong.append(f"{entry['path']}: {found}, recorded {entry['hash']}")
    if wrong:
        raise InputError(listing(f"{directory}: {len(wrong)} files are not what the record says:", wrong))
    return compared


def _data_files(directory: Path) -> list[dict[str, Any]]:
    file = directory / "inputs.json"
    found = json.loads(file.read_text())["files"] if file.exists() else []
    return [entry for entry in found if entry["role"] == "data"]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
