"""A run without a config: from a model, the rows to forget and the rows to keep to a config, and what was assumed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negmerge.checkpoints import open_checkpoint
from negmerge.checkpoints.base import elements
from negmerge.errors import InputError, shortened
from negmerge.experiment import direct_language
from negmerge.experiment.exporting.row import shipped_row
from negmerge.experiment.methods import describe
from negmerge.experiment.rundir import read_json
from negmerge.parsing import parse_yaml
from negmerge.registry import FILE, names
from negmerge.tasks.text_classification.tables import REQUESTED, Table, find_columns, label_text, read_table, source_of
from negmerge.tasks.transformers_model import CLASSIFIERS, LANGUAGE, TransformersModel

LIST = ".txt"  # of a file that names rows, one a line
SMALL = 5_000_000  # parameters below which members learn at the rates of small networks
LARGE = 200_000_000  # above which they are adapters
RATES = {True: [3e-4, 1e-3, 3e-3], False: [1e-5, 3e-5, 1e-4]}
BATCH, STEPS = 16, 20  # rows in a batch of a member, and the steps that it has at least
TEST = 0.1  # share of the rows to keep that are tested on, where no unseen rows are given


@dataclass
class Request:
    """What `negmerge unlearn` was given; `assumed` are lines on what it found and took for granted."""

    model: Path
    forget: Path
    retain: Path | None = None
    unseen: Path | None = None
    family: str | None = None
    method: str = "consensus"
    assumed: list[str] = field(default_factory=list)

    def config(self) -> dict[str, Any]:
        """Return the config of the run, as plain values.

        Raises InputError where the model or the rows are not understood, or nothing says what is to be kept.
        """
        previous = find_run(self.model)
        earlier = None if previous is None else _config_of(previous)
        model, base, task = self._model(earlier, previous)
        table = task == "text-classification"
        asks = task == direct_language.TASK
        data = self._questions(earlier) if asks else self._texts(earlier) if table else self._images(earlier)
        rows, objective = data.pop("rows"), data.pop("objective")
        parameters = self._parameters(model, base)
        rounds = max(2, math.ceil(STEPS / math.ceil(rows / BATCH)))
        adapters = asks and direct_language.has_adapters()
        rates = direct_language.RATES if adapters else RATES[parameters < SMALL]
        pool: dict[str, Any] = {
            "train": {"batch_size": BATCH, "optimizer": "adamw"},
            "grid": {"lr": rates, "epochs": [rounds, 2 * rounds]},
        }
        shown = ", ".join(f"{rate:g}" for rate in rates)
        self.assumed.append(f"pool: 6 members, learning rates {shown}, {rounds} and {2 * rounds} epochs")
        if parameters > LARGE or adapters:
            pool["adapter"] = {"r": 16}
            self.assumed.append(f"members are adapters of rank 16: the model has {parameters / 1e6:.0f} M parameters")
        whole = objective == "retain-floor" and describe(self.method).kind != "train"
        if whole:
            self.assumed.append(
                "projection: what the merge would do to rows that are kept is taken out of it; the better of the two "
                "models is handed over (--set projection=none leaves it out)"
            )
        return {
            "name": "unlearn",
            "task": task,
            "model": model,
            "data": data,
            "base": base,
            "pool": pool,
            "methods": [self.method],
            "projection": {"rows": "retain"} if whole else "none",
            "selection": {"objective": objective},
        }

    def _model(self, earlier: Mapping[str, Any] | None, previous: Path | None) -> tuple[Any, Any, str]:
        """Return the model and base parts of the config, and the task."""
        if earlier is not None and previous is not None:
            row = shipped_row(earlier, read_json(previous / "results.json"))
            weights = _whole(previous) / "methods" / row / "model.safetensors"
            self.assumed.append(f"model: what the run in {previous} left ({row}), of its family {_family(earlier)}")
            return earlier["model"], {"checkpoint": str(weights), "previous": str(_whole(previous))}, earlier["task"]
        if self.family is None:
            found = TransformersModel(str(self.model))
            if self.model.is_file():
                raise InputError(f"{self.model} holds weights alone; say what they are of: --family NAME, or FILE.py")
            if found.architecture.endswith(LANGUAGE):
                self.assumed.append(f"model: {found.architecture} of transformers, a causal language model")
                return {"family": "hf", "path": str(_whole(self.model))}, {"pretrained": True}, direct_language.TASK
            kind = "image" if found.architecture.endswith(CLASSIFIERS["image"]) else "text"
            found.check("image" if kind == "image" else "text")
            self.assumed.append(f"model: {found.architecture or 'a classifier'} of transformers, for {kind}s")
            path = _whole(self.model)
            return {"family": "hf", "path": str(path)}, {"pretrained": True}, f"{kind}-classification"
        texts = self.family in names("text-families") and self.family != "hf"
        if self.family.endswith(FILE) or self.family == "hf":
            texts = not (self.retain is not None and self.retain.is_dir())
        family: Any = {"file": str(_whole(Path(self.family)))} if self.family.endswith(FILE) else self.family
        self.assumed.append(f"model: the weights in {self.model}, of the family {self.family}")
        return (
            {"family": family},
            {"checkpoint": str(_whole(self.model))},
            f"{'text' if texts else 'image'}-classification",
        )

    def _questions(self, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the data part for questions with answers, or texts: all of those to forget are forgotten."""
        before = {} if earlier is None else earlier["data"]
        retain = [self.retain] if self.retain else [Path(path) for path in before.get("path", [])]
        left_out = direct_language.earlier_requests(before)
        kept, gone = [_whole(path) for path in retain], [_whole(path) for path in left_out]
        unseen = _whole(self.unseen) if self.unseen else None
        data, rows, assumed = direct_language.question_data(_whole(self.forget), kept, gone, unseen)
        self.assumed += assumed
        return {**data, "rows": rows, "objective": "retain-floor"}

    def _texts(self, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the data part for rows in tables: those to forget come first, and all of them are forgotten."""
        before = {} if earlier is None else earlier["data"]
        retain = [self.retain] if self.retain else [Path(path) for path in before.get("path", [])[1:]]
        if not retain:
            raise InputError(
                "unlearn: nothing says what must be kept; give --retain FILE: a few hundred rows that must stay "
                "as they are will do"
            )
        table = read_table(self.forget)
        text, label = find_columns(table, {}, str(self.forget))
        labels = {label_text(value, str(self.forget)) for value in table[label]}
        kept = {label_text(v, str(file)) for file in retain for v in read_table(file).get(label, [])}
        self.assumed.append(
            f"rows: {self.forget} has {_count(table):,} to forget (text in {text!r}, class in {label!r}: "
            f"{shortened(sorted(labels), 4)}); what else stands in {shortened([str(file) for file in retain])} is kept"
        )
        rows = _count(table)
        data: dict[str, Any] = {
            "source": source_of(retain[0]),
            "path": [str(_whole(path)) for path in (self.forget, *retain)],
            "columns": {"text": text, "label": label},
            "distinct_first": rows,
            "test_fraction": TEST,
            "forget": {"where": {REQUESTED: [True]}},
            "rows": rows,
            "objective": "retain-floor",
        }
        left_out = [*before.get("leave_out", []), *before.get("path", [])[:1]]
        if left_out:
            data["leave_out"] = left_out
            self.assumed.append(f"rows of earlier requests are left out: {shortened(left_out)}")
        if self.unseen is None:
            self.assumed.append(
                "no --unseen rows: a tenth of the rows to keep is tested on and another is used for validation, though "
                "the model may know them; α is the deepest that keeps 95 % of the accuracy on the others"
            )
            return data
        if not labels <= kept:
            return {**data, "test": str(_whole(self.unseen))}
        self.assumed.append("the forgotten classes stay: α is chosen so that forgotten rows look like unseen ones")
        return {**data, **self._with_unseen(data, retain)}

    def _with_unseen(self, data: Mapping[str, Any], retain: list[Path]) -> dict[str, Any]:
        """Return what makes half of the unseen rows validation rows, with which match-holdout compares, half test."""
        assert self.unseen is not None
        pairs = {name: str(column) for name, column in data["columns"].items()}

        def keys(path: Path) -> list[tuple[str, str]]:
            table = read_table(path)
            labels = (label_text(value, str(path)) for value in table[pairs["label"]])
            return list(zip(map(str, table[pairs["text"]]), labels, strict=True))

        gone = {key for path in [self.forget, *map(Path, data.get("leave_out", []))] for key in keys(path)}
        seen = data["rows"] + sum(key not in gone for path in retain for key in keys(path))
        unseen = sum(key not in gone for key in keys(self.unseen))
        return {
            "path": [*data["path"], str(_whole(self.unseen))],
            "train_rows": [0, seen],
            "train_first": seen,
            "test_fraction": 0.5,
            "validation": {"rows": [seen, seen + unseen - max(1, round(0.5 * unseen))]},
            "objective": "match-holdout",
        }

    def _images(self, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the data part for images in class folders: a list of files to forget, or the folder of a class."""
        before = {} if earlier is None else earlier["data"]
        root = self.retain or (Path(before["path"]) if "path" in before else None)
        if root is None or not root.is_dir():
            raise InputError(
                f"unlearn: {root or 'nothing'} is no folder of images; give --retain FOLDER, a folder a class"
            )
        data: dict[str, Any] = {"source": "image-folder", "path": str(_whole(root)), "objective": "retain-floor"}
        if self.retain is None:
            data |= self._without_earlier(before, root)
        if self.forget.is_dir():
            if not self.forget.resolve().is_relative_to(root.resolve()):
                raise InputError(
                    f"unlearn: {self.forget} is not in {root}; name its files, one a line, in a {LIST} file"
                )
            self.assumed.append(f"the class {self.forget.name} of {root} is forgotten as a whole")
            rows = sum(path.is_file() for path in self.forget.rglob("*"))
            return {**data, "forget": {"classes": [self.forget.name]}, "rows": max(1, rows)}
        if self.forget.suffix != LIST:
            raise InputError(f"unlearn: {self.forget} is no list; give file names, one a line, in a {LIST} file")
        listed = [line for line in self.forget.read_text().splitlines() if line.strip()]
        self.assumed.append(f"{self.forget} names {len(listed)} images of {root}; the others are kept")
        gone = str(_whole(self.forget))
        return {**data, "train_files": gone, "forget": {"files": gone}, "rows": max(1, len(listed))}

    def _without_earlier(self, before: Mapping[str, Any], root: Path) -> dict[str, Any]:
        """Return what keeps the classes of earlier requests from being retained.

        Raises InputError where single images were forgotten: nothing in the folder tells them from the others.
        """
        rule = before["forget"] or {}
        gone = [str(name) for name in rule.get("classes") or []]
        if not gone:
            raise InputError(
                f"unlearn: the images of the earlier request still lie in {root}; give --retain FOLDER without them"
            )
        place = root / "train" if (root / "train").is_dir() else root
        known = (before.get("retain") or {}).get("classes") or sorted(path.name for path in place.iterdir())
        classes = [name for name in known if name not in gone and (place / name).is_dir()]
        self.assumed.append(f"class {', '.join(gone)}, forgotten earlier, is not kept; its images are still tested on")
        return {"retain": {"classes": classes}}

    def _parameters(self, model: Mapping[str, Any], base: Mapping[str, Any]) -> int:
        checkpoint = open_checkpoint(Path(base.get("checkpoint") or model["path"]))
        try:
            return sum(elements(checkpoint.shape(name)) for name in checkpoint.names)
        finally:
            checkpoint.close()


def find_run(model: Path) -> Path | None:
    """Return the directory of the finished run that a path is, or that it is the exported model of; else None."""
    for place in (model, model.parent):
        if (place / "record.json").is_file() and (place / "config.yaml").is_file():
            return place if place == model or model.name == "model" else None
    return None


def _whole(path: Path) -> Path:
    """Return a path that holds wherever the next command is called; a hub id as it is."""
    return path.resolve() if path.exists() else path


def _config_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = parse_yaml((run / "config.yaml").read_text())
    return found


def _family(config: Mapping[str, Any]) -> str:
    return str(config["model"]["family"])


def _count(table: Table) -> int:
    return len(next(iter(table.values()), ()))
