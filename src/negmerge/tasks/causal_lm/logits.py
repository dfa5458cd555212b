"""One pass of a causal language model over a batch."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.tasks.causal_lm.batches import NOTHING, Batch
from negmerge.tasks.compute import Compute

KEEP = "logits_to_keep"  # the argument of transformers' models by which some logits alone are computed


def answer_logits(compute: Compute, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits [b, P, V] and labels int64 [b, P]: of the places from which a counted token of some row is told.

    Place p of a row tells its token p + 1. The model's own precision; the batch is on its device.
    """
    counted = (batch.labels != NOTHING).any(0).nonzero()[:, 0]
    first, last = int(counted.min()), int(counted.max())
    called: Any = model
    arguments: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    keeps = KEEP in inspect.signature(called.forward).parameters
    if keeps:
        arguments[KEEP] = torch.arange(first - 1, last, device=batch.ids.device)
    with compute.autocast(batch.ids.device.type):
        logits = called(**arguments).logits
    if not keeps or logits.shape[1] != last - first + 1:  # wrapped, or one that does not heed it
        logits = logits[:, first - 1 : last]
    return logits, batch.labels[:, first : last + 1]
