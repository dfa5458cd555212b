"""CIFAR-10: small photographs of ten kinds of things."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named

NAMES = "airplane automobile bird cat deer dog frog horse ship truck"

FACTS = NamedSet(
    title="CIFAR-10",
    hub="uoft-cs/cifar10",
    columns={"image": "img", "label": "label"},
    count=10,
    templates=tuple(
        f"a {kind}photo of {article} {size}{{}}."
        for article in ("a", "the")
        for kind, size in (
            ("", ""),
            ("blurry ", ""),
            ("black and white ", ""),
            ("low contrast ", ""),
            ("high contrast ", ""),
            ("bad ", ""),
            ("good ", ""),
            ("", "small "),
            ("", "big "),
        )
    ),
    words={name: name for name in NAMES.split()},
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
