"""A task in one file: rows of a table, a small network. Copy it; `negmerge.tasks.preparing` says what is optional."""

from dataclasses import dataclass
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.datasets import load_wine
from torch import nn
from torch.nn import functional

from negmerge.seeding import seeded
from negmerge.tasks.classification_scores import classification_scores
from negmerge.tasks.columns import COLUMNS, columns_of
from negmerge.tasks.compute import Compute
from negmerge.tasks.ensemble import Ensemble, join_weights, load_classifier
from negmerge.tasks.preparing import OwnFamily, OwnSource, own
from negmerge.tasks.task import Task
from negmerge.tasks.tensor_tables import TensorBatches, TensorStore, TensorTable, TensorTables, with_split

SUMMARY = "rows of a table with one class each"


class Wine(BaseModel):
    """178 wines of three growers: 13 measurements each, by the mean and the spread of the train table."""

    model_config = ConfigDict(extra="forbid")

    test_share: float = Field(0.25, gt=0, lt=1, description="of the rows, for the test table")


class Network(BaseModel):
    """A hidden layer."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(32, ge=1, description="units of the hidden layer")


source_file = partial(own, "source", known={"wine": OwnSource(Wine)})
family_of = partial(own, "family", known={"mlp": OwnFamily(Network)})


def load_data(data, model):
    measured, labels = (torch.from_numpy(part) for part in load_wine(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order.tensor_split([round(Wine(**data.source_settings).test_share * len(order))])
    inputs = ((measured - measured[train].mean(0)) / measured[train].std(0)).float()
    names = tuple(load_wine().target_names.tolist())
    return with_split(TensorTables(*(TensorTable(inputs[rows], labels[rows], names) for rows in (train, test))), data)


def make_task(data, model, compute, tables, facts):
    width = Network(**model.settings).width
    return TableRows(tables, tables.both.inputs.shape[1], len(facts["classes"]), width, compute)


@dataclass(frozen=True)
class TableRows(Task):
    """What `negmerge.tasks.task` asks for. From `losses` on it is what some methods need, and may be left out."""

    tables: TensorTables | TensorStore
    features: int
    classes: int
    width: int
    compute: Compute

    NAME = "table-rows"
    NOUN = "row"
    COLUMNS = tuple(COLUMNS)

    @property
    def scores(self):
        return classification_scores(self.NOUN, self.classes)

    def rows(self):
        return self.tables.rows()

    def template(self):
        return nn.Sequential(nn.Linear(self.features, self.width), nn.ReLU(), nn.Linear(self.width, self.classes))

    def start(self, seed):
        return seeded(self.template, seed)

    def open(self, checkpoint, device="cpu"):
        return load_classifier(self.template, checkpoint, f"a network of {self.width} units").to(device).eval()

    def place(self, model, device):
        return model.to(device)

    def trained(self, model):
        return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}

    def batches(self, rows, settings, seed, device):
        return TensorBatches(self.tables.both, rows, settings.batch_size, seed, device)

    def batch(self, rows, device):
        inputs, labels = self.tables.both.take(rows)
        return inputs.to(device), labels.to(device)

    def outputs(self, model, batch):
        device = next(model.parameters()).device
        with self.compute.autocast(device.type):
            inputs = batch[0].to(device)
            logits = model.logits(lambda one, x: one(x), inputs) if isinstance(model, Ensemble) else model(inputs)
        return logits.float()

    def loss(self, model, batch, settings=None):
        logits = self.outputs(model, batch)
        smoothing = settings.label_smoothing if settings else 0.0
        return functional.cross_entropy(logits, batch[1].to(logits.device), label_smoothing=smoothing)

    @torch.inference_mode()
    def observe(self, model, parts, columns):
        model.eval()
        found = {}
        for part, rows in parts.items():
            batch = self.batch(rows, "cpu")
            found[part] = columns_of(self.outputs(model, batch).cpu(), batch[1], columns[part])
        return found

    def losses(self, model, batch):
        logits = self.outputs(model, batch)
        return functional.cross_entropy(logits, batch[1].to(logits.device), reduction="none")

    def labels(self, batch):
        return batch[1]

    def relabel(self, batch, labels):
        return batch[0], labels

    def draw_labels(self, labels, generator):
        return torch.randint(self.classes, labels.shape, generator=generator)

    def join(self, states):
        return join_weights(states)
