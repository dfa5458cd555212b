"""MNIST: handwritten digits."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named

FACTS = NamedSet(
    title="MNIST",
    hub="ylecun/mnist",
    count=10,
    templates=('a photo of the number: "{}".',),
    words={str(digit): str(digit) for digit in range(10)},
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
