"""Questions with their answers, and texts, in memory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.tasks.rows.row_set import RowSet, RowSource

OWN = "own"  # the kind of a row's own answer; of others there are those of OTHERS
OTHERS = ("paraphrased", "perturbed")


@dataclass(frozen=True)
class Answer:
    """An answer to the question of a row that is not its own: the right one in other words, or a wrong one."""

    row: int
    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class QuestionSet(RowSet):
    """Prompts and answers [n] (of a text the prompt is None), labels int64 [n]: the group of each, and their names.

    `others` are further answers, by which the model's own knowledge of the answer is told from its wording.

    >>> two = QuestionSet(("Who?", None), ("Ann.", "A text."), torch.tensor([0, 1]), ("a", "b"))
    >>> len(two), two.take(torch.tensor([1])).answers
    (2, ('A text.',))
    """

    prompts: tuple[str | None, ...]
    answers: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    others: tuple[Answer, ...] = ()

    def content_of(self, rows: Tensor) -> dict[str, Any]:
        """Return prompts and answers of these rows."""
        numbers = rows.tolist()
        place = {row: i for i, row in enumerate(numbers)}
        return {
            "prompts": tuple(self.prompts[row] for row in numbers),
            "answers": tuple(self.answers[row] for row in numbers),
            "others": tuple(Answer(place[a.row], a.kind, a.text) for a in self.others if a.row in place),
        }

    def content_with(self, other: Any) -> dict[str, Any]:
        """Return prompts and answers with those of another set behind."""
        return {
            "prompts": self.prompts + other.prompts,
            "answers": self.answers + other.answers,
            "others": (*self.others, *(Answer(a.row + len(self), a.kind, a.text) for a in other.others)),
        }

    def row_hash(self, row: int) -> str:
        """Return the hash of a row's prompt and answer, with the name of its algorithm."""
        text = json.dumps([self.prompts[row], self.answers[row]])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def key(self, row: int) -> tuple[str | None, str]:
        """Return prompt and answer without the white space around them: rows of equal keys say the same."""
        prompt = self.prompts[row]
        return prompt if prompt is None else prompt.strip(), self.answers[row].strip()

    def digest(self) -> str:
        """Return the sha256 of prompts, answers and groups, in hexadecimal."""
        others = [[answer.row, answer.kind, answer.text] for answer in self.others]
        content = [self.prompts, self.answers, others, self.labels.tolist(), self.classes]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class QuestionSource(RowSource[QuestionSet]):
    """The two tables of a source, and parts that are neither.

    `further` are sets that no request is about and no model is trained on (world facts); their scores are reported.
    """

    further: Mapping[str, QuestionSet] = field(default_factory=dict)


def question_source(
    train: QuestionSet,
    test: QuestionSet,
    further: Mapping[str, QuestionSet] | None = None,
    notes: Sequence[str] = (),
    groupless: str = "",
) -> QuestionSource:
    """Return a source of two tables, whose groups are counted alike: those of the same name are the same."""
    groups = (*train.classes, *(name for name in test.classes if name not in train.classes))
    return QuestionSource(
        train.counted_as(groups), test.counted_as(groups), tuple(notes), groupless, further=further or {}
    )


def question_set(
    prompts: Sequence[Any] | None,
    answers: Sequence[Any],
    groups: Sequence[Any] | None,
    where: str,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> QuestionSet:
    """Return a set of rows as they stand in a table; without `groups` all rows are of one, `all`.

    Raises InputError, naming the row, for a prompt or an answer that is no text, or is empty.
    """
    for row, answer in enumerate(answers):
        _check_text(answer, "answer" if prompts is not None else "text", where, row)
        if prompts is not None:
            _check_text(prompts[row], "prompt", where, row)
    named = ["all"] * len(answers) if groups is None else [_name(group, where, i) for i, group in enumerate(groups)]
    names = tuple(dict.fromkeys(named))
    place = {name: number for number, name in enumerate(names)}
    known = dict(columns or {})
    ids = tuple(map(str, known.get("id", ())))
    return QuestionSet(
        tuple(prompts) if prompts is not None else (None,) * len(answers),
        tuple(answers),
        torch.tensor([place[name] for name in named], dtype=torch.int64),
        names,
        ids=ids if len(set(ids)) == len(ids) else (),
        columns=known,
    )


def with_others(rows: QuestionSet, others: Sequence[Answer]) -> QuestionSet:
    """Return a set with further answers to its questions."""
    return replace(rows, others=tuple(others))


def is_group(value: Any) -> bool:
    """Whether a value names one group."""
    return value is not None and value != "" and not isinstance(value, list | tuple | dict)


def _check_text(value: Any, what: str, where: str, row: int) -> None:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError(f"{where}: row {row} has no {what} ({value!r}); leave such rows out")
    if not isinstance(value, str):
        raise InputError(f"{where}: row {row}: its {what} is no text but {value!r}; write one text")


def _name(group: Any, where: str, row: int) -> str:
    if not is_group(group):
        raise InputError(f"{where}: row {row} has no group ({group!r}); leave such rows out, or write group: none")
    return str(group)
