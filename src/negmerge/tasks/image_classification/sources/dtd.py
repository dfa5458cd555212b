"""DTD: textures described in words."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named

NAMES = (
    "banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked "
    "freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley "
    "perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified "
    "striped studded swirly veined waffled woven wrinkled zigzagged"
)

FACTS = NamedSet(
    title="DTD",
    hub="tanganke/dtd",
    count=47,
    templates=tuple(
        f"a photo of {article} {{}} {noun}."
        for article in ("a", "the")
        for noun in ("texture", "pattern", "thing", "object")
    ),
    words={name.replace("-", " "): name for name in NAMES.split()},
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
