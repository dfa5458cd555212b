"""Damaged checkpoints, merged: each must give a whole OUT, or one clear error and no OUT; no other exception, no hang.

    PYTHONPATH=tests python -m fuzz.fuzzing --cases 20000 --seed 0

A case is known by its kind and number: `--only KIND:NUMBER` runs one again, with a traceback. Memory is limited by
the address space of the process, time by an alarm; every file beside OUT is looked at after each case.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch

from fuzz.mutations import damage_archive, damage_bytes, damage_folder, damage_header, damage_json
from negmerge.checkpoints import write_state_dict
from negmerge.errors import NegmergeError
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.verifying import verify_model
from pools import drift, make_state

SECONDS = 10  # for one case, of which most take some milliseconds
MEMORY = 2**30  # bytes of address space beyond what the process has when it starts
GROWTH = 2**28  # bytes of resident memory that all cases together may add


class HangError(BaseException):
    """A case took too long; no handler of Exception may swallow it."""


class Seeds:
    """Whole checkpoints of every format, as bytes by file name; and a base and a member that are whole."""

    def __init__(self, folder):
        base = {name: value for name, value in make_state(0).items() if name not in ("exact",)}
        base["layer.weight"] = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        member = drift(base, 1)
        self.base, self.member = folder / "base.safetensors", folder / "member.safetensors"
        write_state_dict(self.base, base)
        write_state_dict(self.member, drift(base, 2))
        names = list(base)
        file = folder / "seed"

        def safetensors(tensors):
            write_state_dict(file, tensors)
            return file.read_bytes()

        def pickled(tensors, zipped):
            made = io.BytesIO()
            torch.save(tensors, made, _use_new_zipfile_serialization=zipped)
            return made.getvalue()

        def shards(stem, ending, write):
            parts = {f"{stem}-{i + 1:05}-of-00002.{ending}": {n: member[n] for n in names[i::2]} for i in range(2)}
            index = {"metadata": {}, "weight_map": {name: part for part, tensors in parts.items() for name in tensors}}
            files = {part: write(tensors) for part, tensors in parts.items()}
            return {f"{stem}.{ending}.index.json": json.dumps(index).encode(), **files}

        config = {
            "peft_type": "LORA", "r": 2, "lora_alpha": 8, "use_rslora": True, "target_modules": ["layer"],
            "alpha_pattern": {"layer": 3}, "rank_pattern": {}, "base_model_name_or_path": "owner/base",
        }  # fmt: skip
        factors = {
            "base_model.model.layer.lora_A.weight": torch.randn(2, 4),
            "base_model.model.layer.lora_B.weight": torch.randn(6, 2),
            "base_model.model.stem.bias": torch.ones(7),
        }
        whole = safetensors(member)
        self.files = {
            "one.safetensors": {"one.safetensors": whole},
            "one.pt": {"one.pt": pickled({"state_dict": member, "epoch": 3}, True)},
            "old.pt": {"old.pt": pickled(member, False)},
            "folder": {"model.safetensors": whole, "config.json": b'{"model_type": "llama", "sizes": [1, {"a": 2}]}'},
            "shards": shards("model", "safetensors", safetensors),
            "bins": shards("pytorch_model", "bin", lambda tensors: pickled(tensors, True)),
            "adapter": {
                "adapter_config.json": json.dumps(config).encode(),
                "adapter_model.safetensors": safetensors(factors),
            },
        }


# kind → seed, and for each of its files that may be damaged, how
KINDS = {
    "safetensors header": ("one.safetensors", ".safetensors", damage_header),
    "safetensors bytes": ("one.safetensors", ".safetensors", damage_bytes),
    "archive parts and pickles": ("one.pt", ".pt", damage_archive),
    "archive bytes": ("one.pt", ".pt", damage_bytes),
    "old PyTorch file": ("old.pt", ".pt", damage_bytes),
    "index of shards": ("shards", ".index.json", damage_json),
    "shard header": ("shards", ".safetensors", damage_header),
    "index of .bin shards": ("bins", ".index.json", damage_json),
    ".bin shard": ("bins", ".bin", damage_archive),
    "adapter config": ("adapter", ".json", damage_json),
    "adapter header": ("adapter", ".safetensors", damage_header),
    "adapter bytes": ("adapter", ".safetensors", damage_bytes),
    "config.json": ("folder", ".json", damage_json),
    "files of a folder": ("shards", None, damage_folder),
    "files of an adapter": ("adapter", None, damage_folder),
}


def lay_out(rng, folder, kind, seeds):
    """Write the damaged checkpoint of a case; return its path."""
    seed, ending, damage = KINDS[kind]
    files = seeds.files[seed]
    place = folder / seed
    single = len(files) == 1
    if not single:
        place.mkdir()
    chosen = rng.choice([name for name in files if ending and name.endswith(ending)] or [None])
    for name, data in files.items():
        (folder if single else place).joinpath(name).write_bytes(damage(rng, data) if name == chosen else data)
    if chosen is None:
        damage(rng, place, sorted(files))
    return place


def run_case(folder, kind, number, seeds, verbose=False):
    """Run one case; return None, or what is wrong with what happened, and the outcome."""
    rng = random.Random(f"{kind}:{number}")
    place = lay_out(rng, folder, kind, seeds)
    output = folder / rng.choice(("out.safetensors", "out"))
    as_base = rng.random() < 0.5 and KINDS[kind][0] != "adapter"
    base, members = (place, [seeds.member]) if as_base else (seeds.base, [place, seeds.member])
    before = listing(folder)
    outcome = "merged"
    try:
        merge_checkpoints(base, members, output, workers=1, hash_inputs=rng.random() < 0.5, max_shard_size=None)
        verify_model(output)
    except NegmergeError as error:
        outcome = "refused"
        lines = str(error).splitlines()
        if not 1 <= len(lines) <= 12 or len(lines[0]) > 1000:
            return f"an error of {len(lines)} lines: {str(error)[:300]!r}", outcome
        if os.path.lexists(output):
            return f"an OUT after the error {lines[0]}", outcome
    except HangError:
        return f"no end after {SECONDS} s", "hung"
    except Exception as error:
        if verbose:
            traceback.print_exc()
        return f"{type(error).__name__}: {str(error)[:300]}", "crashed"
    own = (f"{output.name}/", f"{output.name}:")
    after = {name for name in listing(folder) if not name.startswith(own)}
    if after != before or Path("executed").exists():
        return f"files beside OUT: {sorted(after ^ before)}", outcome
    return None, outcome


def listing(folder):
    """The paths and sizes of all files."""
    return {f"{path.relative_to(folder)}:{path.lstat().st_size}" for path in folder.rglob("*") if not path.is_dir()}


def fuzz(cases, first=0, only=None, report=print):
    """Run cases over all kinds in turn; return the outcomes by kind, and the findings."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        root = Path(place)
        os.chdir(root)
        (root / "seeds").mkdir()
        seeds = Seeds(root / "seeds")
        kinds = list(KINDS)
        todo = [only] if only else [(kinds[i % len(kinds)], i // len(kinds)) for i in range(first, first + cases)]
        counts, findings = {}, []
        start = resident()
        for kind, number in todo:
            folder = root / "case"
            folder.mkdir()
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                wrong, outcome = run_case(folder, kind, number, seeds, verbose=only is not None)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            by_outcome = counts.setdefault(kind, {})
            by_outcome[outcome] = by_outcome.get(outcome, 0) + 1
            if wrong:
                findings.append(f"{kind}:{number}: {wrong}")
                report(findings[-1])
            shutil.rmtree(folder)
        grown = resident() - start
        if grown > GROWTH:
            findings.append(f"resident memory grew by {grown / 2**20:.0f} MiB")
        os.chdir("/")
    return counts, findings


def resident():
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit():
    """Take from this process the memory that only a wild allocation needs, and set the alarm for hangs."""

    def stop(*_):
        raise HangError

    signal.signal(signal.SIGALRM, stop)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main():
    """Run from the command line; the exit code is 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first case")
    parser.add_argument("--only", help="KIND:NUMBER of one case")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    only = None
    if chosen.only:
        kind, _, number = chosen.only.rpartition(":")
        only = (kind, int(number))
    limit()
    started = time.perf_counter()
    counts, findings = fuzz(chosen.cases, chosen.seed, only, lambda line: print(line, file=sys.stderr, flush=True))
    seconds = time.perf_counter() - started
    if chosen.json:
        print(json.dumps({"counts": counts, "findings": findings, "seconds": seconds}))
    else:
        for kind, found in counts.items():
            print(f"{kind:28} {sum(found.values()):6,}  " + ", ".join(f"{n:,} {name}" for name, n in found.items()))
        total = sum(sum(found.values()) for found in counts.values())
        print(f"{len(findings)} findings in {total:,} cases, {seconds:.0f} s")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
