"""A model family as a file of one's own: one linear layer."""

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from negmerge.seeding import seeded

SUMMARY = "one linear layer on all pixels"


class Settings(BaseModel):
    """What it is made of."""

    model_config = ConfigDict(extra="forbid")

    bias: bool = Field(True, description="whether the layer has a bias")


def build(settings, classes, shape, seed=0):
    channels, height, width = shape
    layer = nn.Linear(channels * height * width, classes, settings.bias)
    return seeded(lambda: nn.Sequential(nn.Flatten(), layer), seed)


def prepare(settings, images):
    return images.float() / 255


def logits(model, batch):
    return model(batch)
