"""One training loop, its settings, and the pool of fine-tuned members."""

from negmerge.training.settings import TrainSettings

__all__ = ["TrainSettings"]
