"""The checkpoints that `merge.py` measures on: a base and members of a stated shape, written once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from negmerge.checkpoints import SafetensorsWriter, atomic_write
from negmerge.checkpoints.dtypes import of_torch
from negmerge.checkpoints.memory import stored

DRIFT = 0.01  # size of a task vector's elements; weights are of size 1


@dataclass(frozen=True)
class Case:
    """A pool: its name, how many members, the tensors' shapes and dtype."""

    name: str
    text: str
    members: int
    shapes: dict[str, tuple[int, ...]]
    dtype: torch.dtype = torch.float32
    torch_files: bool = False  # beside the safetensors, for peers that read nothing else

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


def clip_shapes() -> dict[str, tuple[int, ...]]:
    """A CLIP ViT-B/32's image tower, and one embedding of the size of its text tower's: 113 M parameters."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (768, 3, 32, 32),
        "visual.class_embedding": (768,),
        "visual.positional_embedding": (50, 768),
        "token_embedding.weight": (49408, 512),
        "visual.proj": (768, 512),
    }
    for i in range(12):
        block = f"visual.resblocks.{i}"
        shapes |= {
            f"{block}.ln_1.weight": (768,), f"{block}.ln_1.bias": (768,),
            f"{block}.attn.in_proj_weight": (2304, 768), f"{block}.attn.in_proj_bias": (2304,),
            f"{block}.attn.out_proj.weight": (768, 768), f"{block}.attn.out_proj.bias": (768,),
            f"{block}.ln_2.weight": (768,), f"{block}.ln_2.bias": (768,),
            f"{block}.mlp.c_fc.weight": (3072, 768), f"{block}.mlp.c_fc.bias": (3072,),
            f"{block}.mlp.c_proj.weight": (768, 3072), f"{block}.mlp.c_proj.bias": (768,),
        }  # fmt: skip
    return shapes


def small_shapes() -> dict[str, tuple[int, ...]]:
    return {f"layers.{i}.weight": (100, 100) for i in range(3000)}


def part_shapes() -> dict[str, tuple[int, ...]]:
    """A quarter of the parameters, for profiles of thirty members where 14 GB are too much."""
    return {f"layers.{i}.weight": (2500, 1000) for i in range(12)}


def few_shapes() -> dict[str, tuple[int, ...]]:
    return {f"layers.{i}.weight": (340, 1000) for i in range(10)}


CASES = {
    case.name: case
    for case in (
        Case("clip", "N = 8, 113 M fp32", 8, clip_shapes(), torch_files=True),
        Case("clip-30", "N = 30, 113 M fp32", 30, clip_shapes()),
        Case("small", "N = 8, 3,000 tensors of 10,000 fp32", 8, small_shapes()),
        Case("few", "N = 8, 3.4 M fp32 (122 MB in all)", 8, few_shapes()),
        Case("bf16", "N = 8, 113 M bf16", 8, clip_shapes(), torch.bfloat16),
        Case("part", "N = 8, 30 M fp32", 8, part_shapes()),
        Case("part-30", "N = 30, 30 M fp32", 30, part_shapes()),
    )
}


def files_of(case: Case, folder: Path, ending: str = "safetensors") -> list[Path]:
    """The base and the members of a case, base first."""
    return [folder / case.name / f"{i:02}.{ending}" for i in range(case.members + 1)]


def make_pool(case: Case, folder: Path) -> None:
    """Write the files of a case that are not there yet; the same bytes every time."""
    (folder / case.name).mkdir(parents=True, exist_ok=True)
    layout = [(name, of_torch(case.dtype), shape) for name, shape in case.shapes.items()]
    for i, path in enumerate(files_of(case, folder)):
        if not path.exists():
            with atomic_write(path) as file:
                writer = SafetensorsWriter(file, layout)
                for name, values in tensors(case, i):
                    writer.write(name, 0, stored(values.reshape(-1)))
    if case.torch_files:
        for i, path in enumerate(files_of(case, folder, "pt")):
            if not path.exists():
                with atomic_write(path) as file:
                    torch.save(dict(tensors(case, i)), file)


def tensors(case: Case, index: int) -> Iterator[tuple[str, torch.Tensor]]:
    for k, (name, shape) in enumerate(case.shapes.items()):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(k))
        if index:
            values += DRIFT * torch.randn(shape, generator=torch.Generator().manual_seed(1000 * index + k))
        yield name, values.to(case.dtype)
