"""What `merge.py` compares: negmerge, the floor of reading and writing, BLAKE3, the published loop, mergekit.

    python merge_contenders.py NAME THREADS OUT BASE MEMBER...

runs one of them in a fresh process and prints {"seconds", "peak_rss"} as JSON. Imports are not in the seconds, nor is
loading negmerge's compiled loops, which belongs to them; each runs twice, and the second time counts.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

CHUNK = 2**20
HASHED = 2**18  # bytes that are hashed at a time


def floor(base: Path, members: list[Path], output: Path, threads: int) -> None:
    """Read every byte of all files, write the base's to `output` and sync it: no arithmetic, no parsing."""
    files = [os.open(path, os.O_RDONLY) for path in (base, *members)]
    size = os.fstat(files[0]).st_size
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(target, size)

    def work(part: int) -> None:
        buffer = bytearray(CHUNK)  # one for each thread, used again and again
        for offset in range(part * CHUNK, size, threads * CHUNK):
            for descriptor in files[1:]:
                os.preadv(descriptor, [buffer], offset)
            count = os.preadv(files[0], [buffer], offset)
            os.pwrite(target, memoryview(buffer)[:count], offset)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    os.fsync(target)
    for descriptor in (*files, target):
        os.close(descriptor)


def blake3_rate(base: Path, members: list[Path], output: Path, threads: int) -> None:
    """Hash as many bytes as all files have, on all threads, from a buffer that stays in the cache."""
    from blake3 import blake3

    pieces = sum(path.stat().st_size for path in (base, *members)) // HASHED

    def work(part: int) -> None:
        buffer = bytes(HASHED)
        for _ in range(part, pieces, threads):
            blake3(buffer).digest()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def inspect(base: Path, members: list[Path], output: Path, threads: int) -> None:
    """What the command `negmerge inspect` does, without its imports."""
    from negmerge.merging.inspecting import inspect_checkpoints

    inspect_checkpoints(base, members, workers=threads)


def published_loop(base: Path, members: list[Path], output: Path, threads: int) -> None:
    """Load each member whole, add up differences and their signs in dictionaries, mask, apply, save."""
    import torch

    torch.set_num_threads(threads)
    origin = torch.load(base)
    total = {name: torch.zeros_like(value) for name, value in origin.items()}
    signs = {name: torch.zeros_like(value) for name, value in origin.items()}
    for path in members:
        for name, value in torch.load(path).items():
            delta = value - origin[name]
            total[name] += delta
            signs[name] += torch.sign(delta)
    result = {}
    for name, value in origin.items():
        agreed = signs[name].abs() == len(members)
        result[name] = value - torch.where(agreed, total[name] / len(members), torch.zeros_like(value))
    torch.save(result, output)


def mergekit(method: str, base: Path, members: list[Path], output: Path, threads: int) -> None:
    """What the command mergekit-pytorch does with one method, without its imports; it writes a folder."""
    import torch
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge

    torch.set_num_threads(threads)
    # θ₀ − the mean of the task vectors, or of those that have the elected sign: what negmerge computes.
    parameters = {"weight": 1.0, "normalize": True, "lambda": -1.0, **({"density": 0.2} if method == "ties" else {})}
    config = RawPyTorchMergeConfig(
        merge_method=method,
        base_model=str(base),
        models=[{"model": str(path)} for path in members],
        parameters=parameters,
    )
    options = MergeOptions(lazy_unpickle=True)
    Executor(plan_flat_merge(config, str(output), False, False, options), math_device="cpu").execute()


def negmerge(method: str, base: Path, members: list[Path], output: Path, threads: int, hashed: bool = False) -> None:
    """What the command `negmerge merge` does, without its imports."""
    from negmerge import merge

    merge(base, members, output, method=method, hash_inputs=hashed, workers=threads)


def load_loops(method: str) -> None:
    """Load the compiled loops of a method by merging ten numbers."""
    import numpy as np

    from negmerge.checkpoints import SafetensorsWriter, atomic_write
    from negmerge.checkpoints.dtypes import FLOAT32
    from negmerge.merging.inspecting import inspect_checkpoints

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.safetensors") for i in range(3)]
        for i, file in enumerate(files):
            with atomic_write(file) as opened:
                SafetensorsWriter(opened, [("w", FLOAT32, (10,))]).write("w", 0, np.full(10, i, np.float32))
        for hashed in (False, True):
            negmerge(method, files[0], files[1:], Path(folder, f"out-{hashed}.safetensors"), 1, hashed)
        inspect_checkpoints(files[0], files[1:], workers=1)


CONTENDERS: dict[str, Any] = {
    "consensus": partial(negmerge, "consensus"),
    "hashed": partial(negmerge, "consensus", hashed=True),
    "from-pt": partial(negmerge, "consensus"),
    "uniform": partial(negmerge, "uniform"),
    "ties": partial(negmerge, "ties"),
    "inspect": inspect,
    "floor": floor,
    "blake3": blake3_rate,
    "published-loop": published_loop,
    "mergekit-task-arithmetic": partial(mergekit, "task_arithmetic"),
    "mergekit-ties": partial(mergekit, "ties"),
}


def peak_rss() -> int:
    """The largest resident memory of this process in bytes; no import, for environments without negmerge."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def remove(output: Path) -> None:
    shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)


WARM_ENOUGH = 20  # seconds of a run that make no difference to the next
OURS = {"consensus": "consensus", "hashed": "consensus", "from-pt": "consensus", "uniform": "uniform", "ties": "ties"}
OURS["inspect"] = "consensus"


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    output, base, *members = (Path(word) for word in sys.argv[3:])
    if name == "from-pt":
        import torch  # noqa: F401
    if name.startswith("mergekit"):
        import mergekit.scripts.merge_raw_pytorch  # noqa: F401
    if name in OURS:
        load_loops(OURS[name])
    # The second time counts: a virtual machine's memory is slow when it is touched first, by as much as a merge takes.
    for _ in range(2):
        remove(output)
        os.sync()
        started = time.perf_counter()
        CONTENDERS[name](base, members, output, threads)
        seconds = time.perf_counter() - started
        if seconds > WARM_ENOUGH:
            break
    print(json.dumps({"seconds": seconds, "peak_rss": peak_rss()}))


if __name__ == "__main__":
    main()
