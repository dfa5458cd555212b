"""Tiny-ImageNet: 200 classes of ImageNet at 64 × 64; its validation split is the test table.

Its labels are WordNet ids, which say nothing to a text encoder: give `class_names` the data set's own words.txt.
"""

from negmerge.data import Source
from negmerge.data.named import NamedSet, NamedSettings, load_named
from negmerge.data.sources.imagenet import TEMPLATES as IMAGENET_TEMPLATES
from negmerge.data.sources.imagenet import word

FACTS = NamedSet(
    title="Tiny-ImageNet",
    hub="zh-plus/tiny-imagenet",
    count=200,
    templates=IMAGENET_TEMPLATES,
    word=word,
    splits={"train": "train", "test": "valid"},
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
