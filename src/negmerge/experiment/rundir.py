"""The run directory: its files, its lock, its config, its events."""

import fcntl
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError, NegmergeError
from negmerge.experiment.config import RunConfig
from negmerge.experiment.machine import peak_rss
from negmerge.parsing import dump_yaml

LOG = logging.getLogger(__name__)
LEVELS = {"stage-started": logging.INFO, "stage-done": logging.INFO, "renewed": logging.INFO, "finished": logging.INFO}
LEVELS |= {"diverged": logging.WARNING, "note": logging.WARNING, "trained": logging.INFO}
FOLDERS = ("base", "reference", "methods", "model", "evidence", "private")
TASK = "task.json"  # what a task is made of beside its rows: an exported model is opened with it
FILES = (
    "split.json", "inputs.json", "pool.json", "leave-one-out.json", "shown.json", "results.json", "record.json",
    "report.html", "config.yaml", "hardest.json", "keys.json", TASK,
)  # fmt: skip

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


@dataclass
class RunDir:
    """Paths of a run, and the events that its stages send.

    `private/` (mode 0700) holds what knows the forget set: decoded images, the pool, merged vectors.
    """

    path: Path
    on_event: OnEvent | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def private(self) -> Path:
        """The folder that only the owner may read."""
        folder = self.path / "private"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def emit(self, event: str, **facts: Any) -> None:
        """Append an event to `events.jsonl` and hand it to the listener."""
        item: Event = {"event": event, "time": round(time.time(), 3), **facts}
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "events.jsonl").open("a") as file:
            file.write(json.dumps(item) + "\n")
        LOG.log(LEVELS.get(event, logging.DEBUG), "%s", _line(event, facts))
        if self.on_event:
            self.on_event(item)

    @contextmanager
    def stage(self, name: str, **facts: Any) -> Iterator[None]:
        """Announce a stage, and its end with its seconds."""
        self.emit("stage-started", stage=name, **facts)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.stages.append({"name": name, "seconds": seconds})
        self.emit("stage-done", stage=name, seconds=round(seconds, 3), peak_rss=peak_rss())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this process. Raises NegmergeError where another one works in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise NegmergeError(f"{self.path}: another process is running here; wait for it to end") from None
            yield

    def check_empty(self) -> None:
        """Raise InputError for a folder with content that no run of this version made."""
        strangers = [p.name for p in self.path.iterdir() if p.name not in {".lock", "events.jsonl"}]
        if any(not name.endswith(".partial") for name in strangers):
            raise InputError(
                f"{self.path} is not empty and no run of negmerge (or of an older version); give another directory "
                "with -o"
            )

    def keep_config(self, config: RunConfig) -> None:
        """Write the resolved config, the one that the run goes on with."""
        write_bytes_atomic(self.path / "config.yaml", dump_yaml(config.resolved()).encode())

    def has(self, name: str) -> bool:
        """Whether a file is there, of any seed."""
        return any(True for pattern in (name, f"seed-*/{name}") for _ in self.path.glob(pattern))

    @property
    def has_trained(self) -> bool:
        """Whether anything was trained to its end: what would be lost if the run were begun anew."""
        models = ("base/training.json", "reference/training.json", "private/pool/*/model.safetensors")
        places = (*models, "results.json")
        return any(self.has(name) for name in places)

    @property
    def is_run(self) -> bool:
        """Whether a run of negmerge was begun in the folder."""
        return (self.path / "keys.json").exists()

    def clear(self) -> None:
        """Remove everything that runs write into their folder, and nothing else; the lock and the events stay.

        What says that it is a run goes last: an interrupted removal can be repeated.
        """
        for name in ("seed-*", *FOLDERS, *FILES):
            for found in self.path.glob(name):
                if found.is_dir() and not found.is_symlink():
                    shutil.rmtree(found)
                else:
                    found.unlink()


def _line(event: str, facts: Mapping[str, Any]) -> str:
    """Return an event as a log shows it."""
    return " ".join([event, *(f"{key}={value}" for key, value in facts.items() if not isinstance(value, dict | list))])


def seed_place(place: RunDir, config: RunConfig, seed: int) -> RunDir:
    """Return where the stages of one seed are: in the run directory itself, or in a folder of a run of several."""
    folder = place.path if len(config.seeds) == 1 else place.path / f"seed-{seed}"
    return RunDir(folder, place.on_event, place.stages)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of the run."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file of the run, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, json.dumps(value, indent=1).encode())
