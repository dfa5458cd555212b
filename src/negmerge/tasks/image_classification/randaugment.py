"""RandAugment on batches of tensors, through kornia."""

from contextlib import nullcontext

import torch
from torch import Tensor

SHARED = 16  # images that share the choice of operations: kornia draws it once a call
STRONGEST = 29  # kornia's magnitudes end before 30, timm's at 10


@torch.no_grad()
def rand_augment(images: Tensor, magnitude: int, operations: int, generator: torch.Generator) -> Tensor:
    """Return uint8 images [b, 1 or 3, H, W] after `operations` random operations of a magnitude from 1 to 10.

    The magnitude is timm's: kornia's is min(29, 3 · magnitude), without noise. Each run of at most 16 images shares
    its operations, drawn without replacement; sign and place of the change are drawn for each image. Pixels are
    computed in float32 and rounded. One number is drawn from `generator`, which seeds kornia's own: equal generators
    give equal images on the same kind of device, and torch's global random numbers are as before.

    Source: Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, 2020
    (arXiv 1909.13719).
    """
    from kornia.augmentation.auto import RandAugment

    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    grey = images.shape[1] == 1
    place = images.device if images.device.type == "cuda" else torch.device("cpu")
    policy = RandAugment(n=operations, m=min(STRONGEST, 3 * magnitude), transformation_matrix_mode="skip")
    on_place = torch.cuda.device(place) if place.type == "cuda" else nullcontext()
    with on_place, torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if place.type == "cuda":
            torch.cuda.manual_seed(seed)
        parts = []
        for part in images.to(place).split(SHARED):
            pixels = part.expand(-1, 3, -1, -1) if grey else part  # some operations mix the channels of a colour
            changed = policy(pixels.to(torch.float32) / 255).mul(255).round().clamp(0, 255).to(torch.uint8)
            parts.append(changed[:, :1] if grey else changed)
    return torch.cat(parts).to(images.device)
