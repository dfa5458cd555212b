"""Merges whose output must not change by a bit: every method, several settings, pools of every dtype.

The golden file holds one hash for each: of the names, dtypes, shapes and bytes of the tensors in OUT, nothing else. To
write it anew, where a change of the numbers is intended:

    python tests/golden_merges.py > tests/merging/golden.json
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pools import make_state

MEMBERS = 4
LONG = 2**18 + 1000  # more than one chunk
POOLS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
CASES = {
    "breadcrumbs": [{}, {"density": 0.3, "gamma": 0.1}, {"density": 0.4, "scope": "model"}],
    "chance-intersection": [{}, {"threshold": 0.75}],
    "consensus": [
        {},
        {"threshold": 0.75},
        {"threshold": 0.5, "mean": "agreeing"},
        {"threshold": 0.8, "zeros": "abstain"},
        {"mean": "agreeing", "zeros": "abstain"},
        {"threshold[weight]": 0.75, "zeros[bias]": "abstain"},
    ],
    "dare": [{}, {"density": 0.3, "rescale": False}, {"density": 0.7, "mean": "elected"}],
    "magmax": [{}],
    "magnitude-consensus": [{}, {"density": 0.8, "threshold": 0.75, "mean": "agreeing"}, {"scope": "model"}],
    "majority-sign": [{}, {"elect_by": "count"}],
    "median": [{}],
    "random-mask": [{}, {"scope": "model", "threshold": 0.75}, {"zeros": "abstain"}],
    "shuffled-signs": [{}, {"threshold": 0.75, "mean": "agreeing"}],
    "soft-consensus": [{}],
    "task-arithmetic": [{"weights": [1.0, 0.5, -0.25, 0.125]}, {"weights": [1, 2, 3, 4]}],
    "ties": [{}, {"density": 0.6, "elect_by": "count"}, {"density": 0.1, "scope": "model"}, {"density[weight]": 0.5}],
    "trimmed-mean": [{}, {"trim": 0.3}],
    "uniform": [{}],
}
DRAWING = ("chance-intersection", "dare", "random-mask", "shuffled-signs")


def numbers(shape, key):
    """Multiples of 2⁻²⁰ from [−1, 1), by integers alone, so that they are the same on every machine."""
    raw = np.random.Philox(key=key).random_raw(int(np.prod(shape)))
    return torch.from_numpy((raw >> np.uint64(43)).astype(np.float64) * 2.0**-20 - 1.0).reshape(shape)


def states(name):
    """A base and its members: a third of the changes are common to all, and a fifth of each member's are 0."""
    layout = {key: tensor for key, tensor in make_state(0).items() if tensor.is_floating_point()}
    if name == "mixed":
        layout["long"] = torch.empty(LONG)
    shapes = {key: (tuple(tensor.shape), POOLS.get(name, tensor.dtype)) for key, tensor in layout.items()}
    found = [{key: numbers(shape, 1000 + i).to(dtype) for i, (key, (shape, dtype)) in enumerate(shapes.items())}]
    for member in range(MEMBERS):
        state = {}
        for i, (key, (shape, dtype)) in enumerate(shapes.items()):
            own, common = (numbers(shape, source + i).flatten() / 8 for source in (2000 + 100 * member, 9000))
            own[::3] = common[::3]
            own[member::5] = 0.0
            state[key] = (found[0][key].double() + own.reshape(shape)).to(dtype)
        found.append(state)
    return found


def write_pools(folder):
    """The pools as files: name → [base, members …]."""
    files = {}
    for name in (*POOLS, "mixed"):
        files[name] = [folder / f"{name}-{i}.safetensors" for i in range(MEMBERS + 1)]
        for path, state in zip(files[name], states(name), strict=True):
            save_file(state, path)
    return files


def hash_tensors(path):
    """The hash of what a file holds: names, dtypes, shapes and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def merge_hash(files, pool, method, settings, output, **options):
    """Merge a pool into `output`, and return the hash of the tensors there."""
    from negmerge.merging.engine import merge_checkpoints

    base, *members = files[pool]
    seed = 7 if method in DRAWING else 0
    merge_checkpoints(
        base, members, output, method=method, settings=settings, seed=seed, alpha=0.75, hash_inputs=False, **options
    )
    return hash_tensors(output)


def label(pool, settings):
    """The key of a case in the golden file."""
    return f"{pool} {json.dumps(settings)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        pools = write_pools(Path(place))
        golden = {
            method: {
                label(pool, settings): merge_hash(
                    pools, pool, method, settings, Path(place) / "out.safetensors", overwrite=True
                )
                for pool in pools
                for settings in cases
            }
            for method, cases in CASES.items()
        }
    print(json.dumps(golden, indent=1))
