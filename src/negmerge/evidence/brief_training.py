"""A few steps of training on given rows, of all weights or of an adapter: what tests do that bring something back."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from negmerge.errors import InputError
from negmerge.evidence.subject import Subject
from negmerge.training.adapters import AdapterSettings, attach

Optimizer = Literal["sgd", "adamw"]


class Way(NamedTuple):
    """How is trained: SGD without momentum, or AdamW without decay; all weights, or a LoRA adapter alone."""

    optimizer: Optimizer
    adapter: AdapterSettings | None

    def prepare(self, model: nn.Module, lr: float, seed: int, who: str) -> torch.optim.Optimizer:
        """Return an optimiser of what is to be trained of a model, to which its adapter is attached first.

        `who` is the test that a refusal names. Raises InputError for targets that the model does not have.
        """
        if self.adapter is not None:
            try:
                attach(model, self.adapter, seed)
            except InputError as error:
                raise InputError(str(error).replace("pool.adapter", f"evidence: {who}: adapter")) from None
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
        return torch.optim.SGD(trained, lr=lr)


def take_steps(
    subject: Subject, model: nn.Module, optimiser: torch.optim.Optimizer, batches: Iterable[Tensor | object]
) -> None:
    """Take a step on each batch, as the task makes them; the model is in training mode, before and after as well."""
    model.train()
    for batch in batches:
        optimiser.zero_grad()
        subject.task.loss(model, batch).backward()
        optimiser.step()
