"""What a request finds, before anything is trained: the rows of every part, and each forgotten row by name."""

from dataclasses import dataclass
from typing import Any

from negmerge.errors import InputError
from negmerge.experiment.config import Config
from negmerge.experiment.prepare import About, describe_request
from negmerge.requests.split_files import forgotten_rows
from negmerge.tasks.opening import preparing_of


@dataclass(frozen=True)
class FoundRows:
    """The rows of a config: how many of each part, every row to forget (row, id, group, hash), and what to know."""

    text: str
    counts: dict[str, int]
    forgotten: list[dict[str, Any]]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"task": self.text, "rows": self.counts, "notes": list(self.notes), "forgotten": self.forgotten}


def find_rows(config: Config) -> FoundRows:
    """Load the data of a config, draw its split as a run does, and return what the request finds; nothing is written.

    Raises InputError as loading the data and drawing the split do.
    """
    if config.data.forget is not None and config.data.forget.hardest is not None:
        raise InputError(
            "data.forget.hardest: which rows these are is known once a run has ranked them; "
            "`negmerge run CONFIG -o DIR` lists them in DIR/split.json"
        )
    loaded = preparing_of(config.model, config.task).load_data(config.data, config.model)
    about: About = describe_request(config, loaded.split, loaded.source.train)
    notes = (*loaded.described.get("notes", ()), *loaded.split.notes)
    return FoundRows(about.text, loaded.split.describe(), forgotten_rows(loaded.split, loaded.source.train), notes)
