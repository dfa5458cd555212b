"""What a data source's file may hold, with a default for everything that it may leave out."""

from collections.abc import Sequence
from dataclasses import dataclass

from negmerge import registry
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet
from negmerge.tasks.rows.loading import SourceFile as RowSourceFile


@dataclass(frozen=True)
class SourceFile(RowSourceFile[Source]):
    """The contents of a source's file; see `negmerge.tasks.rows.loading.SourceFile` for what every source has.

    `TEMPLATES` are the prompts of its classes, {} standing for the class; `FACTS` is what is known of a data set by
    name.
    """

    TEMPLATES: Sequence[str] | None = None
    FACTS: NamedSet | None = None


def source_file(name: str) -> SourceFile:
    """Return a registered source's file. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("sources", name, SourceFile)
