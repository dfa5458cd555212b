"""Questions or texts of a data set of the Hugging Face hub, by its id; a local folder of the same format serves too."""

from typing import Any

from negmerge.tasks.causal_lm.questions import QuestionSource, question_source
from negmerge.tasks.causal_lm.tables import QuestionSettings, Table, find_columns, sampled, to_questions, without_groups
from negmerge.tasks.hub_data import HubSettings, fetch, fresh_cache

SUMMARY = "questions or texts of a data set of the Hugging Face hub, or of a local folder of the same format"


class Settings(QuestionSettings, HubSettings):
    """Which data set, which of its splits, and which columns hold what."""


def load(settings: Settings) -> QuestionSource:
    """Fetch (or read from the cache) the train and test splits.

    Raises InputError for an id that cannot be reached or does not exist, and for a split or a column that is not there.
    """
    with fresh_cache(settings.path) as cache:
        train, test = (table_of(fetch(settings, part, cache)) for part in ("train", "test"))
    names = find_columns(train, settings.columns, settings.path)
    lacking = [without_groups(one, names, settings.columns, settings.path) for one in (train, test)]
    groupless = next(filter(None, lacking), "")
    if groupless:
        names.pop("group")
    whole = to_questions(train, names, f"{settings.path} (train)")
    tested = to_questions(test, names, f"{settings.path} (test)")
    notes = [groupless] if groupless else []
    return question_source(sampled(whole, settings.most), tested, notes=notes, groupless=groupless)


def table_of(rows: Any) -> Table:
    """Return the columns of a table of `datasets`."""
    return {name: list(rows[name]) for name in rows.column_names}
