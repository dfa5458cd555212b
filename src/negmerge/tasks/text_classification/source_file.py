"""What the file of a source of texts may hold."""

from negmerge import registry
from negmerge.tasks.rows.loading import SourceFile
from negmerge.tasks.text_classification.texts import TextSource


def source_file(name: str) -> SourceFile[TextSource]:
    """Return a registered source's file. Raises InputError for an unknown name, and for a file that lacks something."""
    found: SourceFile[TextSource] = registry.read("text-sources", name, SourceFile)
    return found
