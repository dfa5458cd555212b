"""What a training run is made of."""

import sys
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainSettings(BaseModel):
    """The settings of one training run; each may stand in a pool's grid."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled for adamw, added to the gradient for sgd")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(False, description="Nesterov momentum for sgd")
    epochs: int = Field(10, ge=1, description="passes over the training rows")
    steps: int | None = Field(None, ge=1, description="end after so many steps, if that is before `epochs`")
    batch_size: int = Field(128, ge=2, description="rows in one pass through the model")
    accumulate: int = Field(1, ge=1, description="passes whose mean gradient makes a step")
    schedule: Literal["constant", "cosine", "step", "one-cycle"] = Field(
        "cosine", description="how the learning rate moves, step by step"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up before cosine, step or constant")
    milestones: tuple[float, ...] = Field(
        (0.5, 0.75), description="step: the shares of all steps at which the rate is multiplied by gamma"
    )
    gamma: float = Field(0.1, gt=0, description="step: the factor at each milestone")
    peak: float = Field(0.5, gt=0, lt=1, description="one-cycle: the share of all steps at which the rate peaks")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of classes: share of the target spread over all")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient, or null")
    augment: str = Field("none", description="of images: none, crop, flip, or several joined by +")
    freeze_statistics: bool = Field(False, description="batch-norm layers use and keep their running statistics")
    seed: int = Field(0, ge=0, description="mixed into the seed of the run")

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def count_steps(self, batches: int) -> int:
        """Return the number of all steps, for so many batches in an epoch; its last step may have fewer passes.

        >>> TrainSettings(epochs=3, accumulate=2).count_steps(5), TrainSettings(epochs=3, steps=7).count_steps(5)
        (9, 7)
        """
        return min(self.epochs * -(-batches // self.accumulate), self.steps or sys.maxsize)

    def count_rows(self, rows: int) -> int:
        """Return how many rows training on so many passes through the model, a short last batch counted whole.

        >>> TrainSettings(epochs=3).count_rows(1000), TrainSettings(steps=2, batch_size=64).count_rows(1000)
        (3000, 128)
        """
        return min(self.epochs * rows, (self.steps or sys.maxsize) * self.batch_size * self.accumulate)

    def learning_rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step `step` (from 0) of `steps`.

        cosine: lr · (1 + cos(π · p)) / 2 with p the share of the steps after warm-up; one-cycle: linear from 0 to lr
        at `peak`, then linear to 0; step: lr · gamma^(milestones passed); all after warm-up but one-cycle.
        """
        import math

        if self.schedule == "one-cycle":
            top = self.peak * steps
            share = (step + 1) / top if step + 1 <= top else (steps - step) / (steps - top)
            return self.lr * min(1.0, max(share, 0.0))
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            share = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
            return self.lr * 0.5 * (1.0 + math.cos(math.pi * share))
        if self.schedule == "step":
            return float(self.lr * self.gamma ** sum(step >= share * steps for share in self.milestones))
        return self.lr
