"""Does a short training on rows to keep bring back what was forgotten? Nobody shows the model a forgotten row."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from negmerge.evidence.altering import read_altered
from negmerge.evidence.brief_training import Optimizer, Way, take_steps
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.subject import Subject
from negmerge.training.adapters import AdapterSettings

SUMMARY = "what comes back after a short fine-tuning on retain rows alone"
COLUMNS = ("correct",)
WEIGHT = "refutation"  # that nothing comes back so does not tell that nothing is there
REFERENCE = "Łucki et al., An Adversarial Perspective on Machine Unlearning for AI Safety, 2024 (arXiv 2409.18025)"


class Settings(EvidenceSettings):
    """Rows, rates and steps of the training; the rate at which most comes back counts."""

    steps: int = Field(50, ge=1, description="of the training")
    batch_size: int = Field(50, ge=1, description="retain rows of a step, drawn anew for each")
    lr: float = Field(1e-2, gt=0, description="learning rate, held")
    factors: tuple[float, ...] = Field((1.0, 3.0), min_length=1, description="that the rate is tried with")
    optimizer: Optimizer = Field("sgd", description="sgd without momentum, or adamw without weight decay")
    adapter: AdapterSettings | None = Field(None, description="train a LoRA adapter {r, alpha, targets} instead of all")


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return what is trained on and looked at, of the three models."""
    models = 3 * len(settings.factors)
    trained = models * settings.steps * min(settings.batch_size, rows["retain"])
    return Cost(trained=trained, evaluated=(3 + models) * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Train all three models on the same retain rows and look at the forget rows again; facts as in `read_altered`."""

    def change(model: nn.Module, lr: float) -> nn.Module:
        optimiser = Way(settings.optimizer, settings.adapter).prepare(model, lr, 0, "fine-tuning")
        rows = _drawn(subject, settings)
        take_steps(subject, model, optimiser, (subject.task.batch(one, subject.device) for one in rows))
        return model.eval()

    rates = {f"lr {settings.lr * one:.3g}": settings.lr * one for one in settings.factors}
    changes = {name: lambda model, lr=lr: change(model, lr) for name, lr in rates.items()}
    readings, facts = read_altered(subject, changes, str(settings))
    found = Found(readings, "", facts)
    after = facts[found.counted.name]
    now = f"{after['model']:.0f} % of the forgotten rows are right"
    if not subject.counts:
        now = f"the forgotten rows have a mean {subject.task.MEASURE} of {after['model']:.0f} %"
    text = (
        f"After {settings.steps} steps on retain rows alone ({found.counted.name}) {now}, "
        f"{facts['before']['model']:.0f} % before (Retrain {after['reference']:.0f} %, the base {after['base']:.0f} %)."
    )
    return Found(readings, text, facts)


def _drawn(subject: Subject, settings: Settings) -> list[Tensor]:
    """Return the rows of each step: the retain rows in random order, again and again, whole batches only."""
    retain, generator = subject.parts["retain"], subject.generator("fine-tuning")
    size = min(settings.batch_size, len(retain))
    found: list[Tensor] = []
    while len(found) < settings.steps:
        order = retain[torch.randperm(len(retain), generator=generator)]
        found += order[: len(order) // size * size].split(size)
    return found[: settings.steps]
