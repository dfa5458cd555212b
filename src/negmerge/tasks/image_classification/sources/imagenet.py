"""ImageNet (ILSVRC 2012): 1,000 classes; its validation split is the test table.

Classes that are WordNet ids, numbers from 0, or the hub's names in their order have CLIP's wording, which words two
pairs of them alike; classes under other names are worded by the first synonym.
"""

from negmerge.tasks.image_classification.imagenet_names import SYNONYMS, WORDS
from negmerge.tasks.image_classification.imagenet_prompts import TEMPLATES as TEMPLATES_80
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named


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
    words=WORDS,
    word=word,
    own=SYNONYMS,
    splits={"train": "train", "test": "validation"},
    most=50_000,
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
