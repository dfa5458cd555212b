"""Which rows are retained, forgotten, held out and tested: drawn once, saved, hashed."""

import dataclasses

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.requests.hardest import check_hardest
from negmerge.requests.naming import rows_in_list, rows_where
from negmerge.requests.rows import Joined, Rows
from negmerge.requests.rules import (
    ForgetRule,
    RetainRule,
    RowRule,
    ValidationRule,
    check_inside,
    checked_range,
    group_numbers,
    read_rows,
    without,
)
from negmerge.requests.split_files import Split, checked, fingerprint, load_split, save_split, split_from_file

__all__ = [
    "ForgetRule",
    "RetainRule",
    "Split",
    "ValidationRule",
    "draw_split",
    "hold_out",
    "load_split",
    "save_split",
    "split_from_file",
]


STAND_IN = "data.forget: a run ranks the rows first; before that, rows drawn at random stand for the hardest"


def draw_split(
    train: Rows,
    test: Rows,
    *,
    forget: ForgetRule,
    retain: RetainRule | None = None,
    validation: ValidationRule | None = None,
    train_rows: tuple[int, int] | None = None,
    seed: int = 0,
    other: Joined | None = None,
) -> Split:
    """Draw the split: validation rows first, then the forget rows, and what is left is retained.

    Every row of `train` inside `train_rows` (all, unless given) counts as training data. Validation rows are those of
    the rule's range, or else a seeded share of the table, from outside `train_rows` where that leaves any (a base that
    was trained on those rows has not seen the others), otherwise from the training rows, but never rows that are
    named one by one (`rows`, `files`, and `where` of the forget rule). For `hardest`, whose rows only trained models
    tell, as many are drawn at random, and a note says so: a run names the rows before it draws its split. With `other`,
    `train` and `test` are the joined tables: ranges count in the first source, all rows of the second one are to be
    forgotten, and a share of each is held out, drawn for each by itself.

    Raises InputError for ranges that overlap or leave the table, unknown classes, rows that are no training rows, and
    for a split without forget, retain, validation or test rows.

    >>> from negmerge.tasks.image_classification.images import ImageSet  # rows of any task will do
    >>> table = ImageSet(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2, ("cat", "dog"))
    >>> draw_split(table, table, forget=ForgetRule(classes=["cat"]), seed=1).describe()["test_forget"]
    10
    """
    generator = torch.Generator().manual_seed(seed)
    rule = validation or ValidationRule()
    if rule.of == "test":
        raise InputError("data.validation.of: test is for language models; here validation rows are of the train table")
    none = torch.empty(0, dtype=torch.int64)
    everything = torch.arange(len(test))
    if other is not None:
        first = int((~other.train_is_other).sum())
        held_out, trained = hold_out(first, rule, train_rows, seed=seed)
        share = ValidationRule(fraction=rule.fraction, most=rule.most)
        parts = hold_out(len(train) - first, share, seed=seed)
        held_out, trained = (torch.cat([a, first + b]) for a, b in zip((held_out, trained), parts, strict=True))
    else:
        listed = [_named(r, train, test) for r in (forget, retain) if r is not None]
        if forget.where is not None:
            listed.append(rows_where(forget.where, train))
        held_out, trained = hold_out(len(train), rule, train_rows, torch.cat([none, *listed]), generator=generator)
    notes: list[str] = []
    if forget.whole_groups is not None or other is not None:
        if other is not None:
            kind, in_train, in_test = "source", other.train_is_other, other.test_is_other
        else:
            wanted = torch.tensor(_groups(forget, train))
            kind, in_train, in_test = "class", torch.isin(train.group_of, wanted), torch.isin(test.group_of, wanted)
        split = Split(
            kind,
            retain=trained[~in_train[trained]],
            forget=trained[in_train[trained]],
            validation=held_out[~in_train[held_out]],
            validation_forget=held_out[in_train[held_out]],
            test=everything[~in_test],
            test_forget=everything[in_test],
        )
    elif forget.source is not None:
        raise InputError("data.forget.source: join the two sources first, and pass what join_sources returned as other")
    else:
        chosen = _choose(forget, train, test, trained, generator, "forget")
        kind = "random" if forget.fraction is not None else "rows"
        notes += _counted(forget, chosen, trained, "forget")
        if forget.hardest is not None:
            notes.append(STAND_IN)
        split = Split(kind, without(trained, chosen), chosen, held_out, none, everything, none)
    if retain is not None:
        kept = _choose(retain, train, test, split.retain, generator, "retain")
        notes += _counted(retain, kept, split.retain, "retain")
        split = dataclasses.replace(split, retain=kept)
    return checked(dataclasses.replace(split, source=fingerprint(train, test), notes=tuple(notes)))


def hold_out(
    size: int,
    rule: ValidationRule,
    train_rows: tuple[int, int] | None = None,
    listed: Tensor | None = None,
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the validation and the training rows of a table of `size` rows; `listed` rows stay out of the draw.

    A share is drawn from the generator or else from the seed alone: so the rows of a source are the same whatever it
    is joined with, and a model may be trained beforehand without them.

    >>> hold_out(5, ValidationRule(rows=(3, 5)))
    (tensor([3, 4]), tensor([0, 1, 2]))
    """
    generator = generator or torch.Generator().manual_seed(seed)
    allowed = torch.arange(size) if train_rows is None else checked_range(list(train_rows), size, "data.train_rows")
    if rule.rows is not None:
        held_out = checked_range(list(rule.rows), size, "data.validation.rows")
        if train_rows is None:
            return held_out, without(allowed, held_out)
        if torch.isin(held_out, allowed).any():
            raise InputError("data.train_rows and data.validation.rows overlap; validation must not be trained on")
        return held_out, allowed
    unseen = without(torch.arange(size), allowed)
    among = unseen if len(unseen) else without(allowed, torch.empty(0, dtype=torch.int64) if listed is None else listed)
    count = min(rule.most, max(1, round(rule.fraction * size)))
    held_out = among[torch.randperm(len(among), generator=generator)[:count]].sort().values
    return held_out, without(allowed, held_out)


def _groups(rule: RowRule, train: Rows) -> list[int]:
    return group_numbers(rule.whole_groups or [], train.groups, "class" if rule.groups is None else "group")


def _named(rule: RowRule, train: Rows, test: Rows) -> Tensor:
    """Return the rows that a rule names one by one, by number or by id; none where it is of another kind."""
    if rule.rows is not None:
        return read_rows(rule.rows, len(train))
    return torch.empty(0, dtype=torch.int64) if rule.files is None else rows_in_list(rule.files, train, test)


def _choose(rule: RowRule, train: Rows, test: Rows, among: Tensor, generator: torch.Generator, key: str) -> Tensor:
    if rule.whole_groups is not None:
        return among[torch.isin(train.group_of[among], torch.tensor(_groups(rule, train)))]
    if rule.where is not None:
        return among[torch.isin(among, rows_where(rule.where, train))]
    hardest = rule.hardest if isinstance(rule, ForgetRule) else None
    if rule.fraction is None and hardest is None:
        rows = _named(rule, train, test)
        check_inside(rows, among, f"data.{key}: {rule.rows or rule.files}")
        return rows
    if hardest is not None:
        check_hardest(hardest.n, len(among))
    count = hardest.n if hardest is not None else max(1, round((rule.fraction or 0.0) * len(among)))
    return among[torch.randperm(len(among), generator=generator)[:count]].sort().values


def _counted(rule: RowRule, chosen: Tensor, among: Tensor, key: str) -> list[str]:
    """Return what is to be said of how many rows a rule found, a line each."""
    if rule.fraction is not None and len(chosen) == 1:
        return [f"data.{key}: fraction {rule.fraction:g} of {len(among)} rows is a single row"]
    return []
