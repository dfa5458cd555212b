"""ImageNet (ILSVRC 2012): 1,000 classes; its validation split is the test table."""

from negmerge.data import Source
from negmerge.data.named import NamedSet, NamedSettings, load_named
from negmerge.data.sources._imagenet_prompts import TEMPLATES as TEMPLATES_80


def word(name: str) -> str:
    """Return the first of the synonyms that the data set gives a class.

    >>> word("tench, Tinca tinca")
    'tench'
    """
    return name.split(",")[0].strip().replace("_", " ")


FACTS = NamedSet(
    title="ImageNet",
    hub="ILSVRC/imagenet-1k",
    count=1000,
    templates=TEMPLATES_80,
    word=word,
    splits={"train": "train", "test": "validation"},
    most=50_000,
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
