"""RESISC45: scenes seen from the air."""

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet, NamedSettings, load_named

NAMES = (
    "airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland cloud "
    "commercial_area dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area "
    "intersection island lake meadow medium_residential mobile_home_park mountain overpass palace parking_lot railway "
    "railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium "
    "storage_tank tennis_court terrace thermal_power_station wetland"
)

FACTS = NamedSet(
    title="RESISC45",
    hub="tanganke/resisc45",
    count=45,
    templates=tuple(
        f"{view} of {article}{{}}."
        for article in ("", "a ", "the ")
        for view in (
            "satellite imagery",
            "aerial imagery",
            "satellite photo",
            "aerial photo",
            "satellite view",
            "aerial view",
        )
    ),
    words={name.replace("_", " "): name.replace("_", " ") for name in NAMES.split()},
)
SUMMARY, TEMPLATES, Settings = FACTS.summary, FACTS.templates, NamedSettings


def load(settings: NamedSettings) -> Source:
    """Return the data set from the hub, or from the local folder in `path`."""
    return load_named(FACTS, settings)
