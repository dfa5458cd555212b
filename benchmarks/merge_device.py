"""How fast `--device cuda` merges, beside the CPU and the floor of reading and writing, on the same files in one run.

    python benchmarks/merge_device.py --folder DIR [--members 8] [--rounds 5] [--device cuda] [--small]

One base and N members with the shapes of CLIP ViT-B/32 (113 M parameters), float32 and bfloat16. Every line is
measured in turns in one process, after one round that does not count; inputs are not hashed, the files are in the page
cache. The bytes of the device's result are compared with those of the CPU's. Printed is Markdown.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from merge_contenders import floor
from merge_pools import CASES, DRIFT, Case

from negmerge.checkpoints import SafetensorsWriter, atomic_write
from negmerge.checkpoints.dtypes import of_torch
from negmerge.checkpoints.memory import stored
from negmerge.merging.engine import merge_checkpoints

METHODS = ("consensus", "uniform", "magmax", "soft-consensus", "dare")


def make(case: Case, folder: Path, members: int, device: str) -> list[Path]:
    """Write random weights, drawn on the device: the same kind of pool as merge_pools makes, in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    layout = [(name, of_torch(case.dtype), shape) for name, shape in case.shapes.items()]
    files = [folder / f"{i:02}.safetensors" for i in range(members + 1)]
    for i, path in enumerate(files):
        if path.exists():
            continue
        with atomic_write(path) as file:
            writer = SafetensorsWriter(file, layout)
            for k, (name, shape) in enumerate(case.shapes.items()):
                values = torch.randn(shape, generator=torch.Generator(device).manual_seed(k), device=device)
                if i:
                    own = torch.Generator(device).manual_seed(1000 * i + k)
                    values += DRIFT * torch.randn(shape, generator=own, device=device)
                writer.write(name, 0, stored(values.to(case.dtype).cpu().reshape(-1)))
    return files


def seconds(files: list[Path], output: Path, method: str, device: str, threads: int) -> float:
    output.unlink(missing_ok=True)
    os.sync()
    started = time.perf_counter()
    if method == "floor":
        floor(files[0], files[1:], output, threads)
    else:
        merge_checkpoints(files[0], files[1:], output, method=method, device=device, workers=threads, hash_inputs=False)
    return time.perf_counter() - started


def measure(case: Case, options: argparse.Namespace) -> list[str]:
    files = make(case, options.folder / case.name, options.members, options.device)
    output = options.folder / "out.safetensors"
    lines = [("floor", "cpu"), *((method, device) for method in METHODS for device in ("cpu", options.device))]
    found: dict[tuple[str, str], list[float]] = {line: [] for line in lines}
    whole: dict[str, bytes] = {}
    for i in range(1 + options.rounds):
        for method, device in lines:
            taken = seconds(files, output, method, device, options.threads)
            print(f"{case.name} round {i} {method} {device} {taken:.3f} s", file=sys.stderr)
            if i:
                found[method, device].append(taken)
            elif method != "floor" and device == "cpu":
                whole[method] = output.read_bytes()
            elif method != "floor" and whole.pop(method) != output.read_bytes():
                raise SystemExit(f"{method}: the result on {device} differs from that on the CPU")
    base = statistics.median(found["floor", "cpu"])
    rows = [f"### {case.text.replace('N = 8', f'N = {options.members}')}", ""]
    rows += ["| what | where | n | median s | from – to | × floor |", "|---|---|---|---|---|---|"]
    for (method, device), runs in found.items():
        median = statistics.median(runs)
        rows.append(
            f"| {method} | {device} | {len(runs)} | {median:.2f} | {min(runs):.2f} – {max(runs):.2f} "
            f"| {median / base:.2f} |"
        )
    return [*rows, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--cases", default="clip,bf16")
    parser.add_argument("--small", action="store_true", help="tensors of a thousandth of the size, to try the script")
    options = parser.parse_args()
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else "no GPU"
    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{card}; {os.cpu_count()} cores, {options.threads} threads; {software}\n")
    for name in options.cases.split(","):
        case = CASES[name]
        if options.small:
            shapes = {key: tuple(max(1, size // 32) for size in shape) for key, shape in case.shapes.items()}
            case = Case(case.name, case.text, case.members, shapes, case.dtype)
        print("\n".join(measure(case, options)))


if __name__ == "__main__":
    main()
