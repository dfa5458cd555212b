"""What the file of a source of texts may hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge import registry
from negmerge.tasks.text_classification.texts import TextSource


@dataclass(frozen=True)
class TextSourceFile:
    """The contents of a source's file: `load(settings)` returns the train and the test table.

    `Settings` is pydantic, unknown keys are errors; `files(settings)` are those that it reads, which are hashed.
    """

    SUMMARY: str
    Settings: Any
    load: Callable[[Any], TextSource]
    files: Callable[[Any], list[Path]] | None = None


def source_file(name: str) -> TextSourceFile:
    """Return a registered source's file. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("text-sources", name, TextSourceFile)
