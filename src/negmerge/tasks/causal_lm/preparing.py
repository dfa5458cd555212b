"""From the data and model parts of a config to a task: rows loaded, the split drawn, prompts and answers encoded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from negmerge.errors import InputError
from negmerge.requests.rules import ValidationRule
from negmerge.tasks.causal_lm import language_model
from negmerge.tasks.causal_lm.encoding import encode
from negmerge.tasks.causal_lm.language_model import LanguageModel
from negmerge.tasks.causal_lm.questions import QuestionSource
from negmerge.tasks.causal_lm.source_file import source_file
from negmerge.tasks.causal_lm.store import QuestionStore, Sequences
from negmerge.tasks.causal_lm.task import CausalLM, CausalLMOfPassages
from negmerge.tasks.compute import Compute
from negmerge.tasks.preparing import OwnFamily, own
from negmerge.tasks.rows.loading import LoadedRows, load_rows, split_rows
from negmerge.tasks.rows.loading import refuse_augmentation as check_training
from negmerge.tasks.rows.store import BothTables
from negmerge.tasks.settings import DataConfig, ModelConfig

__all__ = ["check_training", "family_of", "load_data", "make_task", "model_files", "open_store", "source_file"]

SUMMARY = "questions with answers, or texts, that a causal language model knows"
LABELLED = False  # authors and documents are no outputs of a model: unseen ones are of the kind of any
GONE = 0.1  # percent: docs/results/capitals.md has what stands above and below it


def open_store(directory: Path) -> QuestionStore:
    """Return the store of a run's encoded rows in a folder."""
    return QuestionStore(directory)


def load_data(data: DataConfig, model: ModelConfig) -> LoadedRows[QuestionSource, Sequences]:
    """Load the source of a config, draw the split and encode the rows as the model's tokenizer does.

    Raises InputError for a forget set of another source, and for groups to forget or keep where rows have none.
    """
    if data.forget is not None and data.forget.source is not None:
        raise InputError("data.forget.source: this task does not join two sources; name groups, rows or a fraction")
    source = load_rows(source_file(data.source), data.source_settings)
    if source.groupless and any(rule is not None and rule.whole_groups for rule in (data.forget, data.retain)):
        raise InputError(f"{source.groupless}, so no group can be named; leave such rows out, or name rows by where")
    if data.validation.of == "test":
        source, data = _held_out_of_test(source, data)
    return LoadedRows(source, split_rows(data, source), encode(source, _model(model)), (len(source.train.classes),))


def _held_out_of_test(source: QuestionSource, data: DataConfig) -> tuple[QuestionSource, DataConfig]:
    """Return the source with a share of the test rows behind its train rows, and a config that holds them out.

    Raises InputError where the test rows are not unseen, or too few.
    """
    where, rule, first, size = "data.validation.of: test", data.validation, len(source.train), len(source.test)
    if source.drawn:
        raise InputError(
            f"{where} takes unseen rows, and the test table is a share of the train table; give test: FILE"
        )
    if data.train_rows is not None:
        raise InputError(f"{where} holds no row of the train table out; leave data.train_rows out")
    count = min(rule.most, max(1, round(rule.fraction * size)))
    if count >= size:
        raise InputError(f"{where}: {count} of {size} test rows leave none to test on; give a smaller fraction")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(data.seed))
    moved, rest = (source.test.take(rows.sort().values) for rows in (order[:count], order[count:]))
    train = source.train.followed_by(moved, source.train.classes, torch.arange(len(source.train.classes)))
    columns = {
        name: [*values, *moved.columns.get(name, [None] * count)] for name, values in source.train.columns.items()
    }
    held_out = {"train_rows": (0, first), "validation": ValidationRule(rows=(first, first + count))}
    return replace(source, train=replace(train, columns=columns), test=rest), data.model_copy(update=held_out)


def make_task(
    data: DataConfig, model: ModelConfig, compute: Compute, tables: BothTables[Sequences], facts: Mapping[str, Any]
) -> CausalLM:
    """Return the task of rows in a store, or in memory, whose facts are given."""
    kind = CausalLMOfPassages if facts.get("passages") else CausalLM
    return kind(_model(model), tables, dict(facts), compute)


def family_of(name: str) -> OwnFamily:
    """Return the one family: models of transformers. Raises InputError for another name."""
    return own("family", name, {"hf": OwnFamily(language_model.Settings, _pretrained, _export)})


def model_files(model: ModelConfig) -> Mapping[str, Path]:
    """Return the files of config, weights and tokenizer, by the names that a record shows."""
    return _model(model).files()


def _model(model: ModelConfig) -> LanguageModel:
    return LanguageModel(language_model.Settings(**model.settings))


def _pretrained(settings: language_model.Settings) -> Mapping[str, Any]:
    return LanguageModel(settings).pretrained()


def _export(settings: language_model.Settings, module: Any, folder: Path) -> None:
    LanguageModel(settings).export(module, folder)
