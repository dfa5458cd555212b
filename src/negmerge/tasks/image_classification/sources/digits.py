"""scikit-learn's handwritten digits: 1,797 grey images of 8 × 8 pixels, embedded in the library."""

import torch

from negmerge.tasks.image_classification.decoding import DecodingSettings, convert
from negmerge.tasks.image_classification.images import ImageSet, Source

SUMMARY = "scikit-learn's 1,797 handwritten digits, 8 × 8 grey, no download"
TEST_ROWS = 360


class Settings(DecodingSettings):
    """Only the settings that all sources share."""


def load(settings: Settings) -> Source:
    """Return the digits, 36 fixed rows of each class as the test table; grey values 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = (torch.from_numpy(raw.images) * (255 / 16)).round().to(torch.uint8)[:, None]
    images = convert(pixels, settings)
    labels = torch.from_numpy(raw.target).to(torch.int64)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for label in range(10):
        rows = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator)
        is_test[rows[order[: TEST_ROWS // 10]]] = True
    classes = tuple(str(digit) for digit in range(10))
    return Source(
        ImageSet(images[~is_test], labels[~is_test], classes), ImageSet(images[is_test], labels[is_test], classes)
    )
