"""An architecture of your own, by the path of its file: this file is both the family and the run.

A family needs `SUMMARY`, `Settings`, `build`, `prepare` and `logits`; a config names it by its path, and so does
`negmerge unlearn WEIGHTS --family mynet.py`.
"""

import tempfile

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

import negmerge
from negmerge.seeding import seeded

SUMMARY = "two layers on all pixels, with a gate between them"


class Settings(BaseModel):
    """What stands beside `family` in a config."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(64, ge=1, description="numbers between the layers")


class Gated(nn.Module):
    """Whatever you like, as long as it is a module."""

    def __init__(self, pixels: int, width: int, classes: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(pixels, width), nn.Linear(pixels, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        out: Tensor = self.head(torch.relu(self.value(x)) * torch.sigmoid(self.gate(x)))
        return out


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of shape (C, H, W), drawn from the seed."""
    return seeded(lambda: Gated(shape[0] * shape[1] * shape[2], settings.width, classes), seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return bytes [b, C, H, W] as the module takes them."""
    return images.float() / 255


def logits(model: nn.Module, batch: Tensor) -> Tensor:
    """Return logits [b, classes]."""
    out: Tensor = model(batch)
    return out


if __name__ == "__main__":
    from negmerge.experiment.config import check_config

    config = {
        "name": "own-architecture",
        "threads": 1,
        "workers": 1,  # so small a network trains fastest in one process
        "model": {"family": {"file": __file__}, "width": 48},
        "data": {"source": "digits", "forget": {"classes": ["3"]}},
        "base": {"train": {"epochs": 15, "lr": 3e-3}},  # or {checkpoint: FILE}: the model you have
        "pool": {"train": {"batch_size": 32}, "grid": {"lr": [3e-4, 1e-3, 3e-3], "epochs": [5]}},
        "methods": ["consensus", "uniform"],
    }
    results = negmerge.run(check_config(config), tempfile.mkdtemp())
    for row in (results["base"], *results["methods"].values()):
        print(f"{row['label']:<10} forget {row['forget']:5.1f} %   retain {row['retain']:5.1f} %")
