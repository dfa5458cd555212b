"""All three models changed alike, in a way that needs no forget rows: does what was forgotten come back?"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.evidence.scale import Reading, Role, read_scale
from negmerge.evidence.subject import ROLES, Subject

Change = Callable[[nn.Module], nn.Module]


def read_altered(
    subject: Subject, changes: Mapping[str, Change], made_of: Any = None
) -> tuple[tuple[Reading, ...], dict[str, Any]]:
    """Return a reading for each change, by name, and the facts.

    Score: the share of forget rows that are right once the model, opened anew, was changed, in percent. Facts: that
    share `before`, of each model, and after each change; `q` = min(before / after, 1) of the judged one (1 where after
    is 0): below 1, the change brought something back. What the same `changes` do to base and Retrain is made once for
    all subjects of a request; `made_of` are the settings that decide them beside their names.
    """
    rows = subject.rows("forget")
    before = {role: float(subject.known(subject.kept(role), rows).mean()) for role in ROLES}
    readings: list[Reading] = []
    facts: dict[str, Any] = {"before": before}
    for name, change in changes.items():
        right: dict[Role, Tensor] = {
            role: subject.once(
                (getattr(subject, role), name, made_of),
                partial(_right_once_changed, subject, role, change, rows),
            )
            for role in ROLES
        }
        readings.append(read_scale(name, right, span=100.0))
        after = float(right["model"].mean())
        kept = min(before["model"] / after, 1.0) if after else 1.0
        facts[name] = {"q": kept, **{str(role): float(right[role].mean()) for role in ROLES}}
    return tuple(readings), facts


def _right_once_changed(subject: Subject, role: Role, change: Change, rows: Tensor) -> Tensor:
    return subject.known(change(subject.open(role)), rows)


def change_matrices(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Change every floating parameter of two dimensions or more, in place, and return the model.

    Norms, biases and other vectors stay. A parameter that stands in several places changes once.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.is_floating_point():
                parameter.copy_(change(parameter))
    return model
