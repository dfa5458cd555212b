"""Boundary expanding: a class that does not exist takes the forget rows, and is removed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.errors import InputError
from negmerge.seeding import derive_seed, seeded
from negmerge.tasks.task import Classifies, need
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, batches_of, fit_base

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget",)
SUMMARY = "train the forget rows towards an extra output, and remove it afterwards"
REFERENCE = "Chen et al., Boundary Unlearning, CVPR 2023 (arXiv 2303.11570)"
REQUIRES = (Classifies,)
SEARCH = {"lr": (1e-5, 1e-4, 1e-3, 1e-2)}


class Settings(SgdSettings):
    """How to train; the learning rate is searched unless given."""

    lr: float = Field(1e-4, gt=0, description="learning rate, the same in every step")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise the cross-entropy of the forget rows with the label K + 1 of an added output, then cut the output off.

    The K outputs there are keep their weights, the new one is initialised from the seed like any linear layer. The
    model that is written, judged and reported has K outputs.

    Raises InputError for a family whose outputs are not those of one linear layer, NegmergeError where training
    diverges.

    Source: arXiv 2303.11570, section 3.3.
    """

    import torch

    def prepare() -> Fitting:
        data = context.data
        labelled = need(data.task, Classifies, "boundary-expanding")
        classes = labelled.classes
        model = data.task.open(context.base, data.device)
        head = widen_head(model, classes, derive_seed(data.seed, "extra output"))
        batches = batches_of(data, data.forget, settings, "forget")

        def loss(module: nn.Module, batch: Any) -> Tensor:
            extra = torch.full_like(labelled.labels(batch), classes)
            return data.task.loss(module, labelled.relabel(batch, extra))

        def without_extra(state: dict[str, Tensor]) -> dict[str, Tensor]:
            widened = {f"{head}.weight", f"{head}.bias"}
            return {name: value[:classes] if name in widened else value for name, value in state.items()}

        return Fitting(batches, batches.steps, loss=loss, model=model, finish=without_extra)

    return fit_base(context, settings, prepare)


def widen_head(model: nn.Module, classes: int, seed: int) -> str:
    """Give the model's last linear layer of `classes` outputs one more, in place, and return the layer's name.

    Raises InputError where the model has no such layer.
    """
    import torch
    from torch import nn

    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    if not found:
        raise InputError(f"boundary-expanding needs a linear layer with {classes} outputs; this model has none")
    old = model.get_submodule(found[-1])
    assert isinstance(old, nn.Linear)
    wide = seeded(lambda: nn.Linear(old.in_features, classes + 1, bias=old.bias is not None), seed)
    wide = wide.to(old.weight)
    assert isinstance(wide, nn.Linear)
    with torch.no_grad():
        wide.weight[:classes] = old.weight
        if old.bias is not None:
            wide.bias[:classes] = old.bias
    name: str = found[-1]
    model.set_submodule(name, wide)
    return name
