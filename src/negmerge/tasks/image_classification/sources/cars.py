"""Stanford Cars: makes, models and years."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named


def word(name: str) -> str:
    """Return a class's own name with spaces for underscores.

    >>> word("Audi_TTS_Coupe_2012")
    'Audi TTS Coupe 2012'
    """
    return " ".join(name.replace("_", " ").split())


FACTS = NamedSet(
    title="Cars",
    hub="tanganke/stanford_cars",
    count=196,
    templates=(
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        *(f"a photo of my {state} {{}}." for state in ("dirty", "clean", "new", "old")),
    ),
    word=word,  # the data set's own names, such as "Audi TTS Coupe 2012"
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
