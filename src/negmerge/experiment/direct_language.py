"""A run without a config on a causal language model: questions, or texts, to forget and to keep."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.errors import InputError, shortened
from negmerge.requests.naming import SPLIT_FILE
from negmerge.tasks.causal_lm.requested import ReadRows, keys, read_files, read_requested
from negmerge.tasks.text_classification.tables import REQUESTED

TASK = "causal-lm"
RATES = [3e-4, 1e-3, 3e-3]  # learning rates of adapters
TEST = 0.1  # share of the rows to keep that are tested on, where no unseen rows are given


def has_adapters() -> bool:
    """Whether members can be adapters: what makes them is installed."""
    return importlib.util.find_spec("peft") is not None


def question_data(
    forget: Path,
    retain: Sequence[Path],
    left_out: Sequence[Path],
    unseen: Path | None,
    columns: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], int, list[str]]:
    """Return the data part of a config, the number of rows to forget, and what was assumed, a line each.

    Raises InputError where nothing is to be kept, and where the columns cannot be told.
    """
    if not retain:
        raise InputError(
            "unlearn: nothing says what must be kept; give --retain FILE: a few hundred questions with answers (or "
            "texts) that the model must go on to know will do"
        )
    chosen = columns or {}
    missing = next((path for path in (forget, *retain) if not path.exists()), None)
    if missing is not None or forget.is_dir():
        why = f"{forget} is a folder" if missing is None else f"{missing}: no such file"
        raise InputError(f"unlearn: {why}; give a table of questions with answers, or of texts")
    kept = read_files(retain, chosen)
    asked = read_requested(forget, chosen, kept)
    data: dict[str, Any] = {
        "source": "table",
        "path": [str(path) for path in retain],
        "requested": str(forget),
        **({"columns": dict(chosen)} if chosen else {}),
        "test_fraction": TEST,
        "forget": {"where": {REQUESTED: [True]}},
    }
    rows, assumed = len(asked.rows), _read_lines(forget, asked, kept, shortened([str(path) for path in retain]))
    if left_out:
        data["leave_out"] = [str(path) for path in left_out]
        assumed.append(f"rows of earlier requests are left out: {shortened([str(path) for path in left_out])}")
    if unseen is None:
        assumed.append(
            "no --unseen rows: a tenth of the rows to keep is tested on and another is used for validation, though the "
            "model may know them"
        )
        return data, rows, assumed
    tested = keys(read_files([unseen], {role: name for role, name in chosen.items() if role != "id"}).rows)
    both = len(tested & keys(kept.rows))
    if both == len(tested):
        raise InputError(
            f"unlearn: all rows of --unseen {unseen} stand in {data['path'][0]} …, too: give rows that the model was "
            "never trained on, or leave --unseen out"
        )
    known = f"; {both:,} of them stand among what is kept, and are not unseen" if both else ""
    assumed.append(f"{unseen} holds rows that the model has never seen: they are tested on{known}")
    return {**data, "test": str(unseen)}, rows, assumed


def _read_lines(forget: Path, asked: ReadRows, kept: ReadRows, files: str) -> list[str]:
    """Return what is said of how rows to forget and to keep were read."""
    rows = len(asked.rows)
    about = " and ".join(
        f"{role} in {name!r}" for role, name in asked.names.items() if role in ("prompt", "answer", "text")
    )
    if "input" in asked.names:
        about += f"; {asked.names['input']!r} stands behind its prompt, after a blank line"
    said = [f"rows: {forget} has {rows:,} to forget ({about}); what else stands in {files} is kept"]
    if asked.given > rows:
        said.append(f"{asked.given - rows:,} of the rows to forget stand there twice, and count once")
    both = len(keys(asked.rows) & keys(kept.rows))
    found = f"of the rows to forget {both:,} stand in {files}, too, and are taken out of what is kept"
    said.append(found if both else f"none of the rows to forget stands in {files}")
    return said + [f"groups: {why}" for why in dict.fromkeys((asked.groupless, kept.groupless)) if why]


def earlier_requests(before: Mapping[str, Any], previous: Path | None) -> list[Path]:
    """Return the files that list what an earlier run, and those before it, forgot: it is not kept either.

    The list of the earlier run is its own, not the file of the request, which may have been written anew since.
    """
    if previous is None:
        return []
    return [*map(Path, before.get("leave_out", [])), previous / SPLIT_FILE]
