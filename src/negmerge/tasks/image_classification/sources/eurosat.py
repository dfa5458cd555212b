"""EuroSAT: land use seen from a satellite."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named

FACTS = NamedSet(
    title="EuroSAT",
    hub="tanganke/eurosat",
    count=10,
    templates=tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")),
    words={
        "annual crop": "annual crop land",
        "forest": "forest",
        "herbaceous vegetation": "brushland or shrubland",
        "highway": "highway or road",
        "industrial": "industrial buildings or commercial buildings",
        "pasture": "pasture land",
        "permanent crop": "permanent crop land",
        "residential": "residential buildings or homes or apartments",
        "river": "river",
        "sea lake": "lake or sea",
    },
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
