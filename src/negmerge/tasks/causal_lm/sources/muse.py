"""MUSE: news or books to forget, others to retain, a holdout that no model saw, and questions on what they say."""

import torch
from pydantic import BaseModel, ConfigDict, Field

from negmerge.errors import InputError
from negmerge.tasks.causal_lm.questions import QuestionSet, QuestionSource, question_set, question_source
from negmerge.tasks.causal_lm.sources.hub import table_of
from negmerge.tasks.causal_lm.tables import Table
from negmerge.tasks.hub_data import HubSettings, fetch, fresh_cache

SUMMARY = "MUSE (arXiv 2407.06460): texts to forget (group “forget”) and to retain, a holdout, and questions on them"
KNOWLEDGE = ("forget", "retain")  # parts with questions on what the texts say


class Settings(BaseModel):
    """Which of the two corpora, and how much of it."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        "muse-bench/MUSE-News", min_length=1, description="the hub id (or muse-bench/MUSE-Books), or a local copy"
    )
    retain: str = Field("retain1", min_length=1, description="the split of `raw` that is retained")
    knowledge: bool = Field(True, description="whether questions on what the texts say are scored too")
    shots: bool = Field(
        True, description="whether examples of the split `…_qa_icl` stand before each question, in one prompt with it"
    )
    most: int | None = Field(None, ge=1, description="the first so many texts of each split; all unless set")


def load(settings: Settings) -> QuestionSource:
    """Return forget and retain texts as the train table, holdout texts as the test table.

    Questions on the texts are the further parts `forget_knowledge` and `retain_knowledge`, each behind the examples of
    MUSE: in `Question: {prompt} ⏎ Answer:`, the template of models without a chat's, they read as MUSE asks. Raises
    InputError for a data set that cannot be reached, or has other columns.
    """
    with fresh_cache(settings.path) as cache:

        def split(config: str, name: str) -> Table:
            found = HubSettings(path=settings.path, config=config, revision=None)
            return table_of(fetch(found, name, cache))

        def texts(name: str, group: str) -> QuestionSet:
            where = f"{settings.path}: raw: {name}"
            found = _column(split("raw", name), "text", where)[: settings.most]
            return question_set(None, found, [group] * len(found), where)

        parts = {}

        def questions(name: str) -> tuple[list[object], list[object]]:
            table, where = split("knowmem", name), f"{settings.path}: knowmem: {name}"
            return _column(table, "question", where), _column(table, "answer", where)

        for part in KNOWLEDGE if settings.knowledge else ():
            prompts, answers = questions(f"{part}_qa")
            shots = zip(*questions(f"{part}_qa_icl"), strict=True) if settings.shots else ()
            before = "".join(f"{question}\nAnswer: {answer}\n\nQuestion: " for question, answer in shots)
            asked = [f"{before}{prompt}" for prompt in prompts]
            where = f"{settings.path}: knowmem: {part}_qa"
            parts[f"{part}_knowledge"] = question_set(asked, answers, [f"{part} knowledge"] * len(answers), where)
        forget, retain = texts("forget", "forget"), texts(settings.retain, "retain")
        train = forget.followed_by(retain, ("forget", "retain"), torch.tensor([1]))
        return question_source(train, texts("holdout", "holdout"), parts)


def _column(table: Table, name: str, where: str) -> list[object]:
    if name not in table:
        raise InputError(f"{where} has no column {name!r}; give muse-bench/MUSE-News, -Books, or a copy of one")
    return list(table[name])
