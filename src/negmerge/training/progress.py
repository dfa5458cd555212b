"""Where a training stands after its last whole epoch, in a file: an interrupted one goes on from there."""

import io
import time
from pathlib import Path

import torch
from torch import nn

from negmerge.checkpoints import write_bytes_atomic
from negmerge.training.loop import Epoch


class Progress:
    """The weights, the optimizer's state, the losses and the seconds of a training, saved after each epoch.

    Without a file nothing is kept, and only losses and seconds are counted. Weights and optimizer are restored bit
    for bit, so the end is the same with and without an interruption.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.losses: list[float] = []
        self._spent = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The time spent on the training, that before interruptions included."""
        return self._spent + time.perf_counter() - self._started

    def restore(self, model: nn.Module) -> Epoch | None:
        """Put the saved weights into `model` and return the epoch to go on from, None where nothing was saved."""
        if self.file is None or not self.file.exists():
            return None
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        self.losses, self._spent = state["losses"], state["seconds"]
        return Epoch(state["number"], state["loss"], state["optimizer"])

    def save(self, model: nn.Module, epoch: Epoch) -> None:
        """Keep the state after an epoch, whole or not at all."""
        self.losses.append(epoch.loss)
        if self.file is None:
            return
        state = {"model": model.state_dict(), "losses": self.losses, "seconds": self.seconds, **vars(epoch)}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes_atomic(self.file, buffer.getvalue())

    def clear(self) -> None:
        """Remove the file: the training is done."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
