"""What the file of a source of questions may hold."""

from negmerge import registry
from negmerge.tasks.causal_lm.questions import QuestionSource
from negmerge.tasks.rows.loading import SourceFile

OF_FILES = ("csv", "json", "jsonl", "parquet")  # formats of the source `table`, which goes by their names too


def source_file(name: str) -> SourceFile[QuestionSource]:
    """Return a registered source's file; a format of tables stands for `table`.

    Raises InputError for an unknown name, and for a file that lacks something.
    """
    return registry.read("question-sources", "table" if name in OF_FILES else name, SourceFile)
