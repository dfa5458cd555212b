"""Does anything that would be shipped, or lies in the run directory, give the base back? Arithmetic tells."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field

from negmerge.errors import shortened
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.restoring import Restoring, changed_share, restore, restored_state, weight_files
from negmerge.evidence.scale import Role, read_scale, unread
from negmerge.evidence.subject import ROLES, Subject

SUMMARY = "whether a file that would be shipped, or lies in the run directory, gives the base back when it is added"
COLUMNS = ("correct",)
WEIGHT = "description"  # a run directory that was not purged always restores the base: that is no trait of the model
READING = "the model with a file of the run added back"


class Settings(EvidenceSettings):
    """How many files are looked at."""

    files: int = Field(
        64,
        ge=1,
        description="of the run directory that are looked at, at most, in the order of names, shadow models last",
    )


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models; reading every file of weights four times is not in it."""
    return Cost(evaluated=3 * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Add every file of weights of the run to the unlearned model, as far as it takes it back to the base.

    Each file alone, and the mean of all members of the pool. Score: the share of forget rows that is right, in percent,
    of the model that is nearest to the base so, copies of the base aside. `facts` name what restores, and where.
    """
    folder = subject.folder
    if folder is None:
        return Found((unread(READING, "there is no run directory to look at"),), "Not made: there is no run directory.")
    share = changed_share(subject.base, subject.model)
    if share is None:
        why = "the model has no tensor in common with the base"
        return Found((unread(READING, why),), f"Not made: {why}, so nothing lies on a line between them.")
    if not share:
        return Found((unread(READING, "the model is the base"),), "The model is the base: nothing needs restoring it.")
    # Shadow models have bases of their own, so they are the least likely to give this one back: they come last.
    every = sorted(weight_files(folder), key=lambda file: "shadows" in file.relative_to(folder).parts)
    looked = [file for file in every if file != subject.model][: settings.files]
    groups: list[tuple[Path, ...]] = [(file,) for file in looked]
    if len(subject.members) > 1:
        groups.append(tuple(subject.members))
    tried = [restore(subject.base, subject.model, files) for files in groups]
    found = [one for one in tried if one is not None]
    shipped = [one for one in found if any(file in subject.shipped for file in one.files) and one.restores]
    best = max((one for one in found if one.how != "copy"), key=lambda one: one.recovered, default=None)
    facts = {
        "changed": share,
        "files": [one.as_json(folder) for one in found if one.restores],
        "shipped": [one.as_json(folder) for one in shipped],
        "nearest": None if best is None else best.as_json(folder),
        "looked_at": len(looked),
        "not_looked_at": len(every) - len(looked) - (subject.model in every),
        "no_weights_of_it": len(tried) - len(found),
    }
    reading = unread(READING, "no file beside the base has weights of such a model")
    if best is not None:
        rows = subject.rows("forget")
        right: dict[Role, torch.Tensor] = {
            role: subject.known(subject.kept(role), rows) for role in ROLES if role != "model"
        }
        model = subject.open("model")
        with torch.no_grad():
            restored_state(best, subject.model, model.state_dict())
        right["model"] = subject.known(model, rows)
        reading = read_scale(READING, right, span=100.0)
    return Found((reading,), _text(subject, found, shipped), facts)


def _text(subject: Subject, found: list[Restoring], shipped: list[Restoring]) -> str:
    """Return what restores the base, and where it lies, in one sentence each."""
    restoring = [one for one in found if one.restores]
    copies = [_names(subject, one) for one in restoring if one.how == "copy"]
    added = [f"{_names(subject, one)} (times {one.factor:.3g})" for one in restoring if one.how != "copy"]
    first = "Nothing that would be shipped gives the base back."
    if shipped:
        first = f"What would be shipped gives the base back: {shortened([_names(subject, one) for one in shipped], 3)}."
    lines = [first]
    if copies:
        lines.append(f"In the run directory the base itself is {shortened(copies, 3)}.")
    if added:
        lines.append(f"Added to the model, these give it back: {shortened(added, 4)}.")
    if not restoring:
        lines.append("Nor does anything in the run directory.")
    else:
        lines.append("Whoever has one of them has the forgotten rows again; --purge and --purge-base remove them.")
    return " ".join(lines)


def _names(subject: Subject, one: Restoring) -> str:
    assert subject.folder is not None
    if len(one.files) > 1:
        return f"the mean of the {len(one.files)} members"
    return one.files[0].relative_to(subject.folder).as_posix()
