"""What a data source's file may hold, with a default for everything that it may leave out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge import registry
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.named import NamedSet


@dataclass(frozen=True)
class SourceFile:
    """The contents of a source's file: `load(settings)` returns the train and the test table.

    `Settings` is pydantic, unknown keys are errors. `TEMPLATES` are the prompts of its classes, {} standing for the
    class; `FACTS` is what is known of a data set by name. `files(settings)` lists what is read of the disk, in a fixed
    order: without it, everything that a path among the settings leads to.
    """

    SUMMARY: str
    Settings: Any
    load: Callable[[Any], Source]
    TEMPLATES: Sequence[str] | None = None
    FACTS: NamedSet | None = None
    files: Callable[[Any], Sequence[Path]] | None = None


def source_file(name: str) -> SourceFile:
    """Return a registered source's file. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("sources", name, SourceFile)
