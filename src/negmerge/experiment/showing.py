"""What the page shows of a run beside its scores: answers, examples, one matrix, and every member alone.

Nothing of it is a row of the request: of these only counts are kept. Examples are unseen rows.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import open_checkpoint
from negmerge.experiment.prepare import Material
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Shows
from negmerge.unlearning.context import Context
from negmerge.unlearning.singles import single_trials

ROWS = 300  # of a part, whose answers are counted
GONE, KEPT = 6, 6  # examples of what was to be forgotten, and of what was to stay
PIXELS = 96  # of the longer side of an example
SIDE = 64, 96  # elements of the matrix that are drawn, at most
ANSWERED = ("forget", "test_forget")

Answers = Mapping[str, Mapping[str, Tensor]]  # of base, reference and model, for each part


@dataclass(frozen=True)
class Models:
    """The checkpoints whose answers are told: the base, the judged model and, where there is one, Retrain."""

    base: Path
    model: Path
    reference: Path | None

    def by_role(self) -> dict[str, Path]:
        """Return the checkpoints by role."""
        found = {"base": self.base, "model": self.model}
        return found if self.reference is None else {**found, "reference": self.reference}


def show_answers(material: Material, models: Models, seed: int) -> dict[str, Any]:
    """Return `answers` (how often each class is the answer to rows of a part) and `examples`, as plain JSON values.

    Both are empty where the task does not observe answers. Of a part at most 300 rows are asked, the same ones of every
    model. Examples are test rows that the base gets right: of the forgotten kind, and of others those first whose
    answer changed.
    """
    task = material.task
    if "answer" not in task.COLUMNS:
        return {"answers": [], "examples": []}
    parts = {part: _sample(material.parts[part], seed, part) for part in (*ANSWERED, "test")}
    seen: dict[str, Answers] = {}
    for role, checkpoint in models.by_role().items():
        columns = dict.fromkeys(parts, ("answer", "correct", "group"))
        seen[role] = task.observe(task.open(checkpoint, material.device), parts, columns)
    groups = task.rows().groups
    answers = []
    for part in ANSWERED:
        if len(parts[part]):
            of = {role: _counted(seen[role][part]["answer"], len(groups)) for role in seen}
            answers.append({"part": part, "rows": len(parts[part]), "labels": list(groups), **of})
    return {"answers": answers, "examples": _examples(material, parts, seen)}


def show_matrix(vector: Path) -> dict[str, Any] | None:
    """Return signs of the largest matrix of a merged vector: "+", "−" where it changes, "." where it was filtered out.

    The upper left corner of it, 64 by 96 elements at most, a text for each row; None where there is no matrix. Weights
    of more than two dimensions are taken as matrices of their first against all others.
    """
    found = open_checkpoint(vector)
    shapes = {name: found.shape(name) for name in found.names if len(found.shape(name)) > 1}
    if not shapes:
        return None
    name = max(shapes, key=lambda one: _area(shapes[one]))
    matrix = found.read(name).reshape(shapes[name][0], -1)
    signs = matrix[: SIDE[0], : SIDE[1]].sign().to(torch.int64) + 1
    return {
        "name": name,
        "shape": list(matrix.shape),
        "kept": int((matrix != 0).sum()),
        "signs": ["".join("-.+"[int(sign)] for sign in row) for row in signs],
    }


def show_lottery(context: Context) -> list[dict[str, Any]]:
    """Return what selection saw of each member that is negated alone, at the α chosen for it: α and all scores."""
    found = []
    for member, trial in single_trials(context).items():
        assert trial.selection is not None
        found.append({"member": member.parent.name, "alpha": trial.selection.alpha, **trial.selection.scores})
    return found


def _area(shape: Sequence[int]) -> int:
    """Return the elements of a matrix whose narrower side still shows something; less where it does not."""
    rows, columns = shape[0], 1
    for size in shape[1:]:
        columns *= size
    return min(rows, SIDE[0]) * min(columns, SIDE[1]) * 10**9 + rows * columns


def _sample(rows: Tensor, seed: int, part: str) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "showing", part))
    return rows[torch.randperm(len(rows), generator=generator)[:ROWS].sort().values]


def _counted(answers: Tensor, groups: int) -> list[int]:
    counts: list[int] = torch.bincount(answers, minlength=groups).tolist()
    return counts


def _examples(material: Material, parts: Mapping[str, Tensor], seen: Mapping[str, Answers]) -> list[dict[str, Any]]:
    task = material.task
    if not isinstance(task, Shows):
        return []
    groups = task.rows().groups
    found = []
    for part, most in (("test_forget", GONE), ("test", KEPT)):
        known = seen["base"][part]["correct"].bool()
        changed = seen["base"][part]["answer"] != seen["model"][part]["answer"]
        order = torch.cat([(known & changed).nonzero()[:, 0], (known & ~changed).nonzero()[:, 0]])
        if part == "test_forget":  # as they come: what changed is no more telling than what did not
            order = known.nonzero()[:, 0]
        for i in order[:most].tolist():
            shown = task.show(int(parts[part][i]))
            if shown is not None:
                said = {role: groups[int(of[part]["answer"][i])] for role, of in seen.items()}
                group = groups[int(seen["base"][part]["group"][i])]
                found.append({"part": part, "group": group, **said, **_shown(shown)})
    return found


def _shown(what: Tensor | str) -> dict[str, str]:
    if isinstance(what, str):
        return {"text": what}
    from PIL import Image

    pixels = what.permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((PIXELS, PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}
