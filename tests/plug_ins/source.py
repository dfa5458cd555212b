"""A data source as a file of one's own: bright lines, each in the row of its class."""

import torch
from pydantic import BaseModel, ConfigDict, Field

from negmerge.tasks.image_classification.images import ImageSet, Source

SUMMARY = "bright lines"


class Settings(BaseModel):
    """How many there are."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(120, ge=1, description="images of the train table")


def load(settings):
    def table(count, seed):
        labels = torch.arange(count) % 4
        images = torch.randint(0, 90, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
        images[torch.arange(count), 0, labels] += 150
        return ImageSet(images.to(torch.uint8), labels, ("a", "b", "c", "d"))

    return Source(table(settings.count, 0), table(40, 1))
