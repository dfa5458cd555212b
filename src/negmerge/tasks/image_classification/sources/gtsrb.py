"""GTSRB: German traffic signs."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named, plain_name

LIMIT, WARNING = "red and white circle {} kph speed limit", "red and white triangle"
# By the numbers that the data set gives its signs; "horizonal" and "bicyle" are spelt so in CLIP's list.
CLASSES = (
    *(LIMIT.format(speed) for speed in (20, 30, 50, 60, 70, 80)),
    "end / de-restriction of 80 kph speed limit",
    *(LIMIT.format(speed) for speed in (100, 120)),
    "red and white circle red car and black car no passing",
    "red and white circle red truck and black car no passing",
    f"{WARNING} road intersection warning",
    "white and yellow diamond priority road",
    "red and white upside down triangle yield right-of-way",
    "stop",
    "empty red and white circle",
    "red and white circle no truck entry",
    "red circle with white horizonal stripe no entry",
    f"{WARNING} with exclamation mark warning",
    f"{WARNING} with black left curve approaching warning",
    f"{WARNING} with black right curve approaching warning",
    f"{WARNING} with black double curve approaching warning",
    f"{WARNING} rough / bumpy road warning",
    f"{WARNING} car skidding / slipping warning",
    f"{WARNING} with merging / narrow lanes warning",
    f"{WARNING} with person digging / construction / road work warning",
    f"{WARNING} with traffic light approaching warning",
    f"{WARNING} with person walking warning",
    f"{WARNING} with child and person walking warning",
    f"{WARNING} with bicyle warning",
    f"{WARNING} with snowflake / ice warning",
    f"{WARNING} with deer warning",
    "white circle with gray strike bar no speed limit",
    "blue circle with white right turn arrow mandatory",
    "blue circle with white left turn arrow mandatory",
    "blue circle with white forward arrow mandatory",
    "blue circle with white forward or right turn arrow mandatory",
    "blue circle with white forward or left turn arrow mandatory",
    "blue circle with white keep right arrow mandatory",
    "blue circle with white keep left arrow mandatory",
    "blue circle with white arrows indicating a traffic circle",
    "white circle with gray strike bar indicating no passing for cars has ended",
    "white circle with gray strike bar indicating no passing for trucks has ended",
)

FACTS = NamedSet(
    title="GTSRB",
    hub="tanganke/gtsrb",
    count=43,
    templates=tuple(f'a {shot} photo of a "{{}}" traffic sign.' for shot in ("zoomed in", "centered", "close up")),
    words={plain_name(name): name for name in CLASSES},
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
