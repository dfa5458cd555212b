"""Merging LoRA adapters into a sharded model of 1.2 billion parameters: negmerge against peft's merge_and_unload.

    python benchmarks/merge_adapters.py FOLDER [--size 1b] [--adapters 8] [--threads 2] [--repeats 3] [--write PAGE]

Makes, once, in FOLDER a Llama of the shape of Llama-3.2-1B with drawn weights (bfloat16, shards of 500 MB; 2.5 GB) and
adapters of rank 16 on all linear layers. Both contenders write θ₀ − α·mean(ΔW), each in a process of its own, in turns:
negmerge by one streamed pass; peft as a script does it, base loaded and adapter merged into it (`merge_and_unload`) one
by one, their weights summed in float32. Seconds are wall-clock without imports; the peak is that of resident memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from training import write

ALPHA, RANK = 0.5, 16
SIZES = {
    "1b": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip


def make(folder: Path, size: str, count: int) -> tuple[Path, list[Path]]:
    """Make base and adapters, unless they are there; each is whole once its name is."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from negmerge.training.adapters import AdapterSettings, attach, write_adapter

    base, adapters = folder / "base", [folder / f"adapter-{i}" for i in range(count)]
    if base.exists() and all(adapter.exists() for adapter in adapters):
        return base, adapters
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **SIZES[size]))
    torch.set_default_dtype(torch.float32)
    if not base.exists():
        model.save_pretrained(folder / ".base", max_shard_size="500MB" if size == "1b" else "50KB")
        (folder / ".base").rename(base)
    targets = attach(model, AdapterSettings(r=RANK), 0)
    for i, adapter in enumerate(adapters):
        torch.manual_seed(1 + i)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = 0.02 * torch.randn(parameter.shape)
        partial = adapter.with_name(f".{adapter.name}")
        shutil.rmtree(partial, ignore_errors=True)
        write_adapter(partial, model, AdapterSettings(r=RANK), targets)
        partial.rename(adapter)
    return base, adapters


def by_negmerge(base: Path, adapters: list[Path], output: Path, threads: int) -> None:
    """One streamed pass."""
    from negmerge.merging.engine import merge_checkpoints

    merge_checkpoints(base, adapters, output, method="uniform", alpha=ALPHA, workers=threads, max_shard_size="500MB")


@torch.no_grad()
def by_peft(base: Path, adapters: list[Path], output: Path, threads: int) -> None:
    """Each adapter merged into a base of its own, one after the other."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)

    origin = load()
    total = {name: torch.zeros(value.shape) for name, value in origin.named_parameters()}
    for adapter in adapters:
        merged = PeftModel.from_pretrained(load(), adapter).merge_and_unload()
        for name, value in merged.named_parameters():
            total[name] += value.float()
        del merged
    for name, value in origin.named_parameters():
        mean = total.pop(name).div_(len(adapters))
        own = value.float()
        value.copy_((own - ALPHA * (mean - own)).to(value.dtype))
    origin.save_pretrained(output, max_shard_size="500MB")


CONTENDERS = {"negmerge": by_negmerge, "peft": by_peft}


def run_here(name: str, base: Path, adapters: list[Path], output: Path, threads: int) -> dict[str, float]:
    """Run a contender in this process: seconds and peak of resident memory in MB."""
    torch.set_num_threads(threads)
    if name == "peft":
        import peft  # noqa: F401
        import transformers  # noqa: F401
    else:
        import negmerge.merging.engine  # noqa: F401
    started = time.perf_counter()
    CONTENDERS[name](base, adapters, output, threads)
    return {"seconds": time.perf_counter() - started, "peak": peak_memory()}


def peak_memory() -> float:
    """Return the most that was resident of this process, in MB; getrusage would count its parent as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def compare(first: Path, second: Path) -> float:
    """Return the largest difference of two results, in units of bfloat16's spacing at the larger value."""
    from negmerge.checkpoints import open_checkpoint

    one, other = open_checkpoint(first), open_checkpoint(second)
    most = 0.0
    for name in one.names:
        a, b = one.read(name).float(), other.read(name).float()
        spacing = torch.maximum(a.abs(), b.abs()).clamp(min=1e-3) * 2.0**-7
        most = max(most, float(((a - b).abs() / spacing).max()))
    one.close()
    other.close()
    return most


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=list(CONTENDERS))
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--run", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.folder.mkdir(parents=True, exist_ok=True)
    base, adapters = make(options.folder, options.size, options.adapters)
    if options.run:
        out = options.folder / f"out-{options.run}"
        print(json.dumps(run_here(options.run, base, adapters, out, options.threads)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS if options.only in (None, name)}
    for _ in range(options.repeats):
        for name, runs in found.items():
            shutil.rmtree(options.folder / f"out-{name}", ignore_errors=True)
            command = [sys.executable, __file__, str(options.folder), "--size", options.size, "--run", name]
            command += ["--adapters", str(options.adapters), "--threads", str(options.threads)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(name, runs[-1], file=sys.stderr)
    lines = ["| | seconds, median (least … most) | peak, MB |", "|---|---|---|"]
    for name, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        spread = f"{min(seconds):.1f} … {max(seconds):.1f}"
        lines.append(f"| {name} | {statistics.median(seconds):.1f} ({spread}) | {max(r['peak'] for r in runs):,.0f} |")
    if len(found) == 2:
        apart = compare(*(options.folder / f"out-{name}" for name in found))
        lines += [
            "",
            f"The results differ by at most {apart:.1f} spacings of bfloat16 (peft rounds after every adapter).",
        ]
    said = f"{options.adapters} adapters, {options.threads} threads, {options.repeats} runs each, in turns."
    text = "\n".join([*lines, "", said, ""])
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
