"""Images and labels: where they come from, how they are split, how they are augmented."""

from negmerge.data.images import ImageSet, Source

__all__ = ["ImageSet", "Source"]
