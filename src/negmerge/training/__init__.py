"""One training loop, its settings, and the pool of fine-tuned members."""

from negmerge.training.loop import fit
from negmerge.training.settings import TrainSettings, derive_seed

__all__ = ["TrainSettings", "derive_seed", "fit"]
