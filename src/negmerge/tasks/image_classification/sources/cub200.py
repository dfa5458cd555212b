"""CUB-200-2011: birds of 200 species."""

import re

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named


def word(name: str) -> str:
    """Return a bird's own name as words, without its number; hyphens stay out, as in CLIP's bird names.

    >>> word("001.Black_footed_Albatross")
    'Black footed Albatross'
    """
    return " ".join(re.sub(r"^\d+\.", "", name).replace("_", " ").replace("-", " ").split())


FACTS = NamedSet(
    title="CUB-200",
    hub="bentrevett/caltech-ucsd-birds-200-2011",
    count=200,
    templates=("a photo of a {}, a type of bird.",),  # CLIP's for Birdsnap, the bird data set that it evaluates
    word=word,  # of the data set's own names
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
