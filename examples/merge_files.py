"""Checkpoints on disk: what `negmerge merge` does, from Python."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import negmerge

# What you have: a base and some fine-tunings of it, saved by whatever trained them.
folder = Path(tempfile.mkdtemp())
generator = torch.Generator().manual_seed(0)
base = {"weight": torch.randn(64, 32, generator=generator), "steps": torch.tensor(100)}
save_file(base, folder / "base.safetensors")
direction = torch.randn(64, 32, generator=generator)
members = []
for i in range(5):
    noise = torch.randn(64, 32, generator=generator)
    members.append(folder / f"member{i}.safetensors")
    save_file({"weight": base["weight"] + 0.01 * (direction + noise), "steps": torch.tensor(200)}, members[-1])

# What you do.
seen = negmerge.inspect(folder / "base.safetensors", members)
print(f"consensus {100 * seen.consensus:.1f} %, independent signs would give {100 * seen.chance:.1f} %")
report = negmerge.merge(folder / "base.safetensors", members, folder / "unlearned.safetensors", alpha=0.9)
print(f"kept {report.kept:,} of {report.merged_elements:,} elements in {report.seconds:.2f} s")

# The same in memory, to the bit.
states = [load_file(path) for path in members]
merged = negmerge.merge_state_dicts(base, states, alpha=0.9)
assert torch.equal(merged["weight"], load_file(folder / "unlearned.safetensors")["weight"])
assert merged["steps"] == 100  # integers pass through from the base
