"""What differs between merges, one thing at a time: every row on the same pool, three draws of the forget set.

    python benchmarks/what_differs.py FOLDER --setting resnet20 --data DIR --models DIR [--next | --stage NAME…]
    python benchmarks/what_differs.py FOLDER --setting small --data DIR     # FOLDER of open_questions.py: its pools

Works through the stages of a setting (see what_differs_rows.py), each in FOLDER/DRAW, and writes
FOLDER/stages/NAME.json when one is done; `--list` shows which are. The same command goes on where it was stopped: no
model is trained twice. `--next` does one stage and ends: each takes less than nine minutes of the machine that its
setting names. Rows are compared on the draws that are for choosing; the one that selection likes best there is
confirmed once, on the other. `--write PAGE` and `--json FILE` write tables and numbers of what is done.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from what_differs_bound import bound
from what_differs_rows import CONFIRMING, SETTINGS, Draw, Setting, confirmed_rows
from what_differs_tables import chosen_row, tables

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError
from negmerge.execution import torch_threads
from negmerge.experiment.config import Config, load_config
from negmerge.experiment.machine import machine, versions
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.renewing import check_identity
from negmerge.experiment.rundir import RunDir, read_json, seed_place
from negmerge.experiment.stages import SeedRun
from negmerge.unlearning.span import UNITS
from training import write

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class Study:
    """The stages of a setting in a folder."""

    def __init__(self, folder: Path, setting: Setting, places: Mapping[str, Path], words: Sequence[str] = ()) -> None:
        self.folder, self.setting, self.places, self.words = folder, setting, places, list(words)

    @property
    def stages(self) -> list[str]:
        """The names of all stages, in order: GROUP-DRAW, and what is confirmed last."""
        choosing = [draw for draw in self.setting.draws if not draw.confirms]
        last = [draw for draw in self.setting.draws if draw.confirms]
        names = [f"originals-{draw.name}" for draw in self.setting.draws]
        names += [f"pool-{draw.name}" for draw in self.setting.draws]
        names += [f"{group}-{draw.name}" for group in self.setting.groups for draw in choosing if self.can(group, draw)]
        names += [f"bound-{by}-{draw.name}" for draw in choosing for by in UNITS]
        return names + [f"{CONFIRMING}-{draw.name}" for draw in last]

    def can(self, group: str, draw: Draw) -> bool:
        """Whether a group's rows can be made: a second Retrain only where the first one was trained."""
        return group != "noise" or not any(change.startswith("reference=") for change in draw.changes)

    def file(self, stage: str) -> Path:
        """Return the file that says that a stage is done."""
        return self.folder / "stages" / f"{stage}.json"

    def place(self, draw: Draw) -> Path:
        """Return the run directory of a draw."""
        return self.folder / (draw.folder or draw.name)

    def config(self, draw: Draw, methods: Sequence[Any]) -> Config:
        """Return the config of some rows on a draw."""
        try:
            given = [word.format(**self.places) for word in (*self.setting.changes, *draw.changes)]
        except KeyError as error:
            raise InputError(f"this setting begins from given models: say --{error.args[0]} DIR") from None
        rows = f"methods={json.dumps(list(methods))}"
        return load_config(CONFIGS / self.setting.config, [*given, *self.words, rows])

    def seed_run(self, draw: Draw) -> SeedRun:
        """Return the stages of a draw's run, ready to be done one by one; its folder is locked by the caller."""
        config, place = self.config(draw, ["original"]), RunDir(self.place(draw))
        check_identity(place, config)
        seed = config.seeds[0]
        return SeedRun(seed_place(place, config, seed), config, prepare(place, config), seed)

    def do(self, stage: str) -> None:
        """Do a stage, and write what it found."""
        group, _, name = stage.rpartition("-")
        draw = next(draw for draw in self.setting.draws if draw.name == name)
        started = time.perf_counter()
        if group in ("originals", "pool") or group.startswith("bound-"):
            with RunDir(self.place(draw)).lock(), torch_threads(self.config(draw, ["original"]).threads or 1):
                found = self._alone(group, draw)
        else:
            found = self._rows(draw, self._methods(group, draw))
            found |= {"chosen": chosen_row(self.done)} if group == CONFIRMING else {}
        found |= {
            "stage": stage,
            "seconds": time.perf_counter() - started,
            "machine": {**machine(self.config(draw, ["original"]).device), **versions()},
        }
        self.file(stage).parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(self.file(stage), json.dumps(found, indent=1).encode())

    def _alone(self, group: str, draw: Draw) -> dict[str, Any]:
        seed = self.seed_run(draw)
        if group == "originals":
            seed.trainer.make_originals()
            return {}
        with seed.place.stage("base"):
            seed.trainer.make_originals()
            seed.ground = seed._ground()
        members, facts = seed._make_pool()
        if group == "pool":
            return {
                "pool": {key: facts[key] for key in ("consensus", "chance", "mean_cosine")},
                "members": len(members),
            }
        return {"bound": bound(seed, members, group.removeprefix("bound-"), self.setting.bound_steps)}

    def _methods(self, group: str, draw: Draw) -> list[Any]:
        if group == CONFIRMING:
            return confirmed_rows(self.setting, chosen_row(self.done))
        return list(self.setting.groups[group])

    def _rows(self, draw: Draw, methods: list[Any]) -> dict[str, Any]:
        config = self.config(draw, methods)
        results = run(config, self.place(draw))
        (self.place(draw) / "report.html").unlink(missing_ok=True)  # of these rows alone
        return {
            "rows": {label: row_of(row) for label, row in results["methods"].items()},
            "reference": {key: results["reference"][key] for key in ("forget", "retain", "test", "membership")},
            "base": {key: results["base"][key] for key in ("forget", "retain", "test", "membership", "gap")},
            "evaluated": results["task"]["evaluated"],
            "pool": {"consensus": results["pool"]["consensus"], "mean_cosine": results["pool"]["mean_cosine"]},
        }

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """What was found so far, by stage."""
        return {stage: read_json(self.file(stage)) for stage in self.stages if self.file(stage).exists()}


def row_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a row of the results: reported numbers, and what selection saw at the chosen α."""
    curve = row.get("curve") or []
    at = next((point for point in curve if point["alpha"] == row.get("alpha")), {})
    own = (row.get("by_layer") or row.get("two_step") or {}).get("scores", at)
    facts = ("by_layer", "two_step", "learned", "runs", "taken")
    numbers = {
        key: row[key] for key in ("forget", "retain", "test", "membership", "gap", "gap_parts", "needs", "seconds")
    }
    return {
        **numbers,
        "alpha": row.get("alpha"),
        "strength": (row.get("projection") or {}).get("strength"),
        "consensus": row.get("consensus"),
        "buffers": row.get("buffers"),
        "seen_gap": own.get("gap"),
        "evaluated": len(curve),
        **{key: row[key] for key in facts if key in row},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--setting", choices=list(SETTINGS), default="resnet20")
    parser.add_argument("--data", type=Path, required=True, help="folder that has cifar10")
    parser.add_argument("--models", type=Path, help="folder of the given models, for a setting that begins from some")
    parser.add_argument("--set", action="append", default=[], dest="words", metavar="KEY=VALUE")
    parser.add_argument("--list", action="store_true", help="show the stages, done or open, and end")
    parser.add_argument("--next", action="store_true", help="do the first open stage, and end")
    parser.add_argument("--stage", nargs="+", metavar="NAME", help="do these stages, in this order")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    places = {name: path.resolve() for name in ("data", "models") if (path := getattr(options, name)) is not None}
    study = Study(options.folder, SETTINGS[options.setting], places, options.words)
    unknown = [stage for stage in options.stage or () if stage not in study.stages]
    if unknown:
        raise SystemExit(f"there is no stage {unknown[0]}; there are {', '.join(study.stages)}")
    if options.list:
        print("\n".join(f"{'done' if study.file(stage).exists() else 'open'}  {stage}" for stage in study.stages))
        return
    todo = [stage for stage in options.stage or study.stages if not study.file(stage).exists()]
    if options.write or options.json:
        todo = []  # pages are made of what is done
    for stage in todo[:1] if options.next else todo:
        print(f"{time.strftime('%H:%M:%S')} {stage}", flush=True)
        try:
            study.do(stage)
        except InputError as error:
            raise SystemExit(str(error)) from None
    if options.json:
        options.json.write_text(json.dumps({"setting": options.setting, "stages": study.done}, indent=1) + "\n")
    if options.write:
        write(options.write, tables(study.setting, study.done))


if __name__ == "__main__":
    main()
