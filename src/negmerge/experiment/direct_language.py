"""A run without a config on a causal language model: questions, or texts, to forget and to keep."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.errors import InputError, shortened
from negmerge.requests.naming import SPLIT_FILE
from negmerge.tasks.causal_lm.tables import find_columns
from negmerge.tasks.text_classification.tables import REQUESTED, read_table

TASK = "causal-lm"
RATES = [3e-4, 1e-3, 3e-3]  # learning rates of adapters
TEST = 0.1  # share of the rows to keep that are tested on, where no unseen rows are given


def has_adapters() -> bool:
    """Whether members can be adapters: what makes them is installed."""
    return importlib.util.find_spec("peft") is not None


def question_data(
    forget: Path, retain: Sequence[Path], left_out: Sequence[Path], unseen: Path | None
) -> tuple[dict[str, Any], int, list[str]]:
    """Return the data part of a config, the number of rows to forget, and what was assumed, a line each.

    Raises InputError where nothing is to be kept, and where the columns cannot be told.
    """
    if not retain:
        raise InputError(
            "unlearn: nothing says what must be kept; give --retain FILE: a few hundred questions with answers (or "
            "texts) that the model must go on to know will do"
        )
    table = read_table(forget)
    names = find_columns(table, {}, str(forget))
    rows = len(next(iter(table.values()), ()))
    about = " and ".join(f"{role} in {name!r}" for role, name in names.items() if role in ("prompt", "answer", "text"))
    kept = shortened([str(path) for path in retain])
    assumed = [f"rows: {forget} has {rows:,} to forget ({about}); what else stands in {kept} is kept"]
    data: dict[str, Any] = {
        "source": "table",
        "path": [str(path) for path in retain],
        "requested": str(forget),
        "test_fraction": TEST,
        "forget": {"where": {REQUESTED: [True]}},
    }
    if left_out:
        data["leave_out"] = [str(path) for path in left_out]
        assumed.append(f"rows of earlier requests are left out: {shortened([str(path) for path in left_out])}")
    if unseen is None:
        assumed.append(
            "no --unseen rows: a tenth of the rows to keep is tested on and another is used for validation, though the "
            "model may know them"
        )
        return data, rows, assumed
    assumed.append(f"{unseen} holds rows that the model has never seen: they are tested on")
    return {**data, "test": str(unseen)}, rows, assumed


def earlier_requests(before: Mapping[str, Any], previous: Path | None) -> list[Path]:
    """Return the files that list what an earlier run, and those before it, forgot: it is not kept either.

    The list of the earlier run is its own, not the file of the request, which may have been written anew since.
    """
    if previous is None:
        return []
    return [*map(Path, before.get("leave_out", [])), previous / SPLIT_FILE]
