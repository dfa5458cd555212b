"""What `unlearn` returns, gathered from the directory of its run."""

import importlib.util
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from negmerge.checkpoints import write_state_dict
from negmerge.experiment.record import add_byproducts
from negmerge.report import html_table, write_report
from negmerge.selection import Point, Selection
from negmerge.tasks.user.task import UserTask

DRAWN_BY = ("jinja2", "matplotlib")
PAGE = ("results.json", "record.json", "split.json", "report.html")


@dataclass(frozen=True)
class Unlearned:
    """The model (a new one), the chosen α with its curve, the share of kept elements, the members, and the results.

    A method that trains has no curve: its `selection` is None. `results` is what stands in `results.json` of a run.
    """

    model: nn.Module = field(repr=False)
    selection: Selection | None = field(repr=False)
    consensus: float
    members: tuple[str, ...] = field(repr=False)
    results: dict[str, Any] = field(repr=False, default_factory=dict)
    method: str = "consensus"

    def __repr__(self) -> str:
        row = self.results["methods"][self.method]
        scores = ", ".join(f"{name} {row[name]:.1f}" for name in ("forget", "retain") if row.get(name) is not None)
        chosen = "" if self.selection is None else f"α = {self.alpha:g}, "
        found = len(self.warnings)
        warned = f", {found} warning{'s' if found > 1 else ''}" if found else ""
        by = f" by {self.results['selection']['objective']}" if self.selection is not None else ""
        return f"Unlearned({self.method}{by}: {chosen}{scores} %, {len(self.members)} members{warned})"

    def _repr_html_(self) -> str:
        """Return the table of results, with the warnings below it, as notebooks show it."""
        return html_table(self.results)

    @property
    def alpha(self) -> float:
        """The chosen scale of the negation; 0 for a method that does not negate."""
        return 0.0 if self.selection is None else self.selection.alpha

    @property
    def verdict(self) -> str | None:
        """The word of the verdict (forgotten, suppressed, …), where evidence was asked for."""
        return (self.results.get("verdict") or {}).get("word")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong and what to do, a line each: `weak-forgetting (consensus): …; …`."""
        return tuple(f"{w['name']} ({w['method']}): {w['text']}; {w['advice']}" for w in self.results["warnings"])

    def save(self, path: Path | str) -> Path:
        """Write the weights of the model as safetensors, whole or not at all, and return the path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        state = self.model.state_dict()
        write_state_dict(target, {name: value.detach().cpu().contiguous() for name, value in state.items()})
        return target


def gather(task: UserTask, folder: Path, results: dict[str, Any], method: str) -> Unlearned:
    """Return what a finished run of one method holds, with the model on the device of the user's."""
    row = results["methods"][method]
    return Unlearned(
        model=task.open(folder / "methods" / method / "model.safetensors", task.device),
        selection=_selection(row) if row.get("curve") else None,
        consensus=row.get("consensus") or 0.0,
        members=tuple(member["name"] for member in results["pool"]["members"]),
        results=results,
        method=method,
    )


def _selection(row: dict[str, Any]) -> Selection:
    points = tuple(
        Point(one["alpha"], {name: value for name, value in one.items() if name != "alpha"}) for one in row["curve"]
    )
    chosen = next(point for point in points if point.alpha == row["alpha"])
    seconds = row["seconds_parts"].get("selection", 0.0)
    facts = (row["floor"], points, row["open_end"], row["note"], seconds, row["lowest_alpha"])
    return Selection(row["alpha"], chosen.scores, *facts)


def write_page(folder: Path, report: Path | None) -> None:
    """Write the report of a run into its directory and, with what it is made of, into another folder.

    Where no other folder is asked for and what draws the page is not installed, `negmerge report` can make it later.
    """
    if report is None and not all(importlib.util.find_spec(package) for package in DRAWN_BY):
        return
    write_report(folder)
    add_byproducts(folder)
    if report is not None and report.resolve() != folder.resolve():
        report.mkdir(parents=True, exist_ok=True)
        for name in PAGE:
            shutil.copyfile(folder / name, report / name)
