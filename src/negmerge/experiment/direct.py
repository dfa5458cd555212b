"""A run without a config: from a model, the rows to forget and the rows to keep to a config, and what was assumed."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from negmerge.checkpoints import open_checkpoint
from negmerge.checkpoints.base import elements
from negmerge.errors import InputError, shortened
from negmerge.experiment import direct_language
from negmerge.experiment.exporting.row import shipped_row
from negmerge.experiment.methods import AUTO, describe
from negmerge.experiment.rundir import read_json
from negmerge.parsing import parse_yaml
from negmerge.registry import FILE, names
from negmerge.requests.naming import SPLIT_FILE, goes_on, rows_named
from negmerge.tasks.image_classification.folders import classes_in, files_below, is_image, parts_of
from negmerge.tasks.text_classification.tables import (
    ID,
    REQUESTED,
    Table,
    find_columns,
    keys_in,
    label_text,
    read_table,
    source_of,
)
from negmerge.tasks.transformers_model import CLASSIFIERS, LANGUAGE, TransformersModel

LIST = ".txt"  # of a file that names rows, one a line
SMALL = 5_000_000  # parameters below which members learn at the rates of small networks
LARGE = 200_000_000  # above which they are adapters
STATISTICS = re.compile(r"(^|\.)running_mean$")  # of batch normalisation
RATES = {  # of members, AdamW; for convolutional networks as measured on the photos of examples/photos_by_name.py
    "small": [3e-4, 1e-3, 3e-3],
    "convolutional": [3e-5, 1e-4, 3e-4],
    "other": [1e-5, 3e-5, 1e-4],
}
BATCH, STEPS = 16, 20  # rows in a batch of a member, and the steps that it has at least
TEST = 0.1  # share of the rows to keep that are tested on, where no unseen rows are given


@dataclass
class Request:
    """What `negmerge unlearn` was given.

    `config` fills what it found: `assumed` are lines on what it took for granted, `scattered` is how many single images
    are forgotten of classes of which enough is kept, and `statistics` says that the model has running statistics.
    """

    model: Path
    forget: Path
    retain: Path | None = None
    unseen: Path | None = None
    family: str | None = None
    method: str = AUTO
    columns: Mapping[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    scattered: int = 0
    statistics: bool = False

    def config(self) -> dict[str, Any]:
        """Return the config of the run, as plain values; `checked_request` chooses the merge where that is "auto".

        Raises InputError where the model or the rows are not understood, or nothing says what is to be kept.
        """
        previous = find_run(self.model)
        earlier = None if previous is None else _config_of(previous)
        model, base, task = self._model(earlier, previous)
        table = task == "text-classification"
        asks = task == direct_language.TASK
        before = {} if earlier is None else earlier["data"]
        if asks:
            data = self._questions(before, previous)
        else:
            data = self._texts(before, previous) if table else self._images(before, previous)
        rows, objective = data.pop("rows"), data.pop("objective")
        parameters, statistics = self._size(model, base)
        rounds = max(2, math.ceil(STEPS / math.ceil(rows / BATCH)))
        adapters = asks and direct_language.has_adapters()
        rates = RATES["small" if parameters < SMALL else "convolutional" if statistics else "other"]
        rates = direct_language.RATES if adapters else rates
        pool: dict[str, Any] = {
            "train": {"batch_size": BATCH, "optimizer": "adamw"},
            "grid": {"lr": rates, "epochs": [rounds, 2 * rounds]},
        }
        if parameters > LARGE or adapters:
            pool["adapter"] = {"r": 16}
            why = f"it has {parameters / 1e6:.0f} M parameters" if parameters > LARGE else "it is a language model"
            self.assumed.append(f"members are adapters of rank 16, not whole models: {why}")
        elif statistics:
            pool["train"]["freeze_statistics"] = True
        self.statistics = statistics
        method = self.method if self.method != AUTO else "uniform"  # until `checked_request` chooses
        merges = describe(method).kind != "train"
        return {
            "name": "unlearn",
            "task": task,
            "model": model,
            "data": data,
            "base": base,
            "pool": pool,
            "methods": [method],
            "projection": {"rows": "retain"} if merges else "none",
            "selection": {"objective": objective},
        }

    def _model(self, earlier: Mapping[str, Any] | None, previous: Path | None) -> tuple[Any, Any, str]:
        """Return the model and base parts of the config, and the task."""
        if earlier is not None and previous is not None:
            row = shipped_row(earlier, read_json(previous / "results.json"))
            weights = _whole(previous) / "methods" / row / "model.safetensors"
            if self.family is not None:
                raise InputError(f"unlearn: the run in {previous} has a family of its own; leave --family out")
            if not weights.is_file():
                why = "it has several seeds" if len(earlier.get("seeds") or []) > 1 else "was it removed?"
                raise InputError(
                    f"unlearn: {previous} holds no model of {row} ({why}); give the weights of one with --family"
                )
            self.assumed.append(f"model: what the run in {previous} left ({row}), of its family {_family(earlier)}")
            return earlier["model"], {"checkpoint": str(weights), "previous": str(_whole(previous))}, earlier["task"]
        if self.family is None:
            found = TransformersModel(str(self.model))
            if self.model.is_file():
                raise InputError(f"{self.model} holds weights alone; say what they are of: --family NAME, or FILE.py")
            if found.architecture.endswith(LANGUAGE):
                self.assumed.append(f"model: {found.architecture} of transformers, a causal language model")
                return {"family": "hf", "path": str(_whole(self.model))}, {"pretrained": True}, direct_language.TASK
            images = self.retain is not None and self.retain.is_dir()  # what decides where the model does not say
            if found.architecture.endswith((*CLASSIFIERS["text"], *CLASSIFIERS["image"])):
                images = found.architecture.endswith(CLASSIFIERS["image"])
            kind: Literal["image", "text"] = "image" if images else "text"
            found.check(kind)
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

    def _questions(self, before: Mapping[str, Any], previous: Path | None) -> dict[str, Any]:
        """Return the data part for questions with answers, or texts: all of those to forget are forgotten."""
        retain = [self.retain] if self.retain else [Path(path) for path in before.get("path", [])]
        left_out = direct_language.earlier_requests(before, previous)
        kept, gone = [_whole(path) for path in retain], [_whole(path) for path in left_out]
        unseen = _whole(self.unseen) if self.unseen else None
        chosen = self.columns or before.get("columns") or {}
        data, rows, assumed = direct_language.question_data(_whole(self.forget), kept, gone, unseen, chosen)
        self.assumed += assumed
        return {**data, "rows": rows, "objective": "retain-floor"}

    def _texts(self, before: Mapping[str, Any], previous: Path | None) -> dict[str, Any]:
        """Return the data part for rows in tables: those to forget come first, and all of them are forgotten."""
        retain = [self.retain] if self.retain else self._kept_before(before)
        if not retain:
            raise InputError(
                "unlearn: nothing says what must be kept; give --retain FILE: a few hundred rows that must stay "
                "as they are will do"
            )
        if self.forget.is_dir():
            raise InputError(f"unlearn: {self.forget} is a folder; give the rows to forget as a table or a list of ids")
        table = read_table(self.forget)
        chosen = self.columns or before.get("columns") or {}
        if self.forget.suffix == LIST and len(table) == 1:
            return self._listed_texts(retain, chosen, before, previous)
        chosen = {role: name for role, name in chosen.items() if role != ID or name in table}
        text, label = find_columns(table, chosen, str(self.forget))
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
            "columns": {**chosen, "text": text, "label": label},
            "distinct_first": rows,
            "test_fraction": TEST,
            "forget": {"where": {REQUESTED: [True]}},
            "rows": rows,
            "objective": "retain-floor",
            **self._without_earlier(before, previous, sorted({*labels, *kept})),
        }
        if self.unseen is None:
            self._tested_on_kept()
            return data
        if not labels <= kept:
            return {**data, "test": str(_whole(self.unseen))}
        self.assumed.append("the forgotten classes stay: α is chosen so that forgotten rows look like unseen ones")
        return {**data, **self._with_unseen(data, retain)}

    def _listed_texts(
        self, retain: list[Path], chosen: Mapping[str, str], before: Mapping[str, Any], previous: Path | None
    ) -> dict[str, Any]:
        """Return the data part where a list names rows of the table to keep, by their ids."""
        table = read_table(retain[0])
        _, label = find_columns(table, chosen, str(retain[0]))
        if chosen.get(ID, ID) not in table:
            raise InputError(
                f"unlearn: {self.forget} is a list, but rows of {retain[0]} have no names; say which column has "
                f"them (--set 'data.columns={{id: NAME}}'; there are {shortened([*table])}), or give a table of rows"
            )
        listed = self._lines()
        self.assumed.append(f"{self.forget} names {len(listed)} rows of {retain[0]}; the others are kept")
        self._tested_on_kept()
        gone = str(_whole(self.forget))
        return {
            "source": source_of(retain[0]),
            "path": [str(_whole(path)) for path in retain],
            **({"columns": dict(chosen)} if chosen else {}),
            **({"test": str(_whole(self.unseen))} if self.unseen else {"test_fraction": TEST, "train_ids": gone}),
            "forget": {"files": gone},
            "rows": len(listed),
            "objective": "retain-floor",
            **self._without_earlier(before, previous, sorted({label_text(v, str(retain[0])) for v in table[label]})),
        }

    def _kept_before(self, before: Mapping[str, Any]) -> list[Path]:
        """Return the tables that the earlier run kept rows of; its unseen rows are unseen again, unless others are."""
        found = before.get("path", [])
        paths = [Path(path) for path in (found if isinstance(found, list) else [found])]
        paths = paths[1:] if before.get("distinct_first") else paths
        unseen = before.get("test")
        if "train_first" in before:
            unseen = paths.pop()
        if self.unseen is None and unseen:
            self.unseen = Path(unseen)
            self.assumed.append(f"unseen rows: those of the earlier run, in {unseen}")
        return paths

    def _tested_on_kept(self) -> None:
        self.assumed.append(
            "no --unseen rows: a tenth of the rows to keep is tested on and another is used for validation, though "
            "the model may know them"
        )

    def _lines(self) -> list[str]:
        try:
            text = self.forget.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a text"
            raise InputError(f"unlearn: {self.forget}: {why}; give a list with the name of a row a line") from None
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            raise InputError(f"unlearn: {self.forget} is empty; give the name of a row a line")
        return lines

    def _with_unseen(self, data: Mapping[str, Any], retain: list[Path]) -> dict[str, Any]:
        """Return what makes half of the unseen rows validation rows, with which match-holdout compares, half test."""
        assert self.unseen is not None
        names = (data["columns"]["text"], data["columns"]["label"])
        gone = {key for path in [self.forget, *map(Path, data.get("leave_out", []))] for key in keys_in(path, names)}
        seen = data["rows"] + sum(key not in gone for path in retain for key in keys_in(path, names))
        unseen = sum(key not in gone for key in keys_in(self.unseen, names))
        return {
            "path": [*data["path"], str(_whole(self.unseen))],
            "train_rows": [0, seen],
            "train_first": seen,
            "test_fraction": 0.5,
            "validation": {"rows": [seen, seen + unseen - max(1, round(0.5 * unseen))]},
            "objective": "match-holdout",
        }

    def _images(self, before: Mapping[str, Any], previous: Path | None) -> dict[str, Any]:
        """Return the data part for images in class folders: a list of files to forget, or the folder of a class."""
        folders = before.get("source") == "image-folder"
        root = self.retain or (Path(before["path"]) if folders else None)
        if root is None or not root.is_dir():
            raise InputError(
                f"unlearn: {root or 'nothing'} is no folder of images; give --retain FOLDER, a folder a class"
            )
        train = parts_of(root, {}).train
        classes = classes_in(train)
        data: dict[str, Any] = {
            "source": "image-folder",
            "path": str(_whole(root)),
            "objective": "retain-floor",
            **self._without_earlier(before, previous, classes),
        }
        if self.forget.is_dir():
            if not self.forget.resolve().is_relative_to(root.resolve()):
                raise InputError(
                    f"unlearn: {self.forget} is not in {root}; name its files, one a line, in a {LIST} file"
                )
            if self.forget.name not in classes:
                raise InputError(
                    f"unlearn: {self.forget} is no class of {root} (these are {shortened(classes, 5)}); name single "
                    f"files, one a line, in a {LIST} file"
                )
            self.assumed.append(f"the class {self.forget.name} of {root} is forgotten as a whole")
            rows = sum(path.is_file() for path in self.forget.rglob("*"))
            return {**data, "forget": {"classes": [self.forget.name]}, "rows": max(1, rows)}
        if is_image(self.forget):
            raise InputError(f"unlearn: {self.forget} is an image; write its name into a {LIST} file, one a line")
        listed = self._lines()
        gone = str(_whole(self.forget))
        rows = self._count_images(train, classes, data)
        self.assumed.append(f"{self.forget} names {rows or len(listed)} images of {root}; the others are kept")
        return {**data, "train_files": gone, "forget": {"files": gone}, "rows": rows or len(listed)}

    def _count_images(self, train: Path, classes: Sequence[str], data: Mapping[str, Any]) -> int:
        """Return how many images are listed; `scattered` becomes that where nine tenths are among others of their kind.

        That is, in classes of which at least half as many are kept as are forgotten, now and by earlier requests.
        """
        files = [file for name in classes for file in files_below(train / name) if is_image(file)]
        ids = [file.relative_to(train).as_posix() for file in files]
        listed = rows_named(self.forget, ids)
        left_out = {*listed, *(row for path in data.get("leave_out", []) for row in rows_named(Path(path), ids))}
        gone = Counter(ids[row].split("/")[0] for row in listed)
        kept = Counter(name.split("/")[0] for row, name in enumerate(ids) if row not in left_out)
        among = data.get("retain", {}).get("classes", classes)
        near = sum(count for name, count in gone.items() if name in among and goes_on(kept[name], count))
        self.scattered = len(listed) if listed and 10 * near >= 9 * len(listed) else 0
        return len(listed)

    def _without_earlier(
        self, before: Mapping[str, Any], previous: Path | None, classes: Sequence[str]
    ) -> dict[str, Any]:
        """Return what keeps the rows of earlier requests from being kept: classes as a whole, others one by one."""
        if previous is None:
            return {}
        rule, listed = before.get("forget") or {}, list(before.get("leave_out") or [])
        gone = [str(name) for name in rule.get("classes") or rule.get("groups") or []]
        if not gone:
            listed.append(str(_whole(previous) / SPLIT_FILE))
        found: dict[str, Any] = {}
        if listed:
            found["leave_out"] = listed
            self.assumed.append(f"rows of earlier requests are left out: those that {shortened(listed)} lists")
        kept = (before.get("retain") or {}).get("classes")
        if gone:
            self.assumed.append(
                f"class {', '.join(gone)}, forgotten earlier, is not kept; its rows are still tested on"
            )
        if gone or kept:
            found["retain"] = {"classes": [name for name in kept or classes if name not in gone]}
        return found

    def _size(self, model: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[int, bool]:
        """Return how many numbers the weights hold, and whether running statistics are among them."""
        checkpoint = open_checkpoint(Path(base.get("checkpoint") or model["path"]))
        try:
            names = list(checkpoint.names)
            return sum(elements(checkpoint.shape(name)) for name in names), any(map(STATISTICS.search, names))
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
