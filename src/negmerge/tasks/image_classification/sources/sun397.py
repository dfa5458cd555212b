"""SUN397: scenes, indoor and outdoor."""

import re

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named, plain_name


def word(name: str) -> str:
    """Return a scene's own name as words: without the letter of its folder, and spaces for _ and /.

    >>> word("/a/apartment_building/outdoor")
    'apartment building outdoor'
    """
    return plain_name(re.sub(r"^/?[a-z]/", "", name))


FACTS = NamedSet(
    title="SUN397",
    hub="tanganke/sun397",
    count=397,
    templates=("a photo of a {}.", "a photo of the {}."),
    word=word,  # of the data set's own names
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
