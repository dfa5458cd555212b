"""The run directory: its files, its lock, its config, its events."""

import difflib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError, NegmergeError, listing
from negmerge.experiment.config import RunConfig
from negmerge.parsing import dump_yaml, parse_yaml

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
        self.emit("stage-done", stage=name, seconds=round(seconds, 3))

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

    def keep_config(self, config: RunConfig) -> None:
        """Write the resolved config, or compare it with the one that is there.

        Raises InputError that shows the difference, or for a folder with other content and no config.
        """
        file = self.path / "config.yaml"
        asked = config.resolved()
        if not file.exists():
            strangers = sorted(p.name for p in self.path.iterdir() if p.name not in {".lock", "events.jsonl"})
            strangers = [name for name in strangers if not name.endswith(".partial")]
            if strangers:
                raise InputError(f"{self.path} is not empty and no run of negmerge; give another directory with -o")
            write_bytes_atomic(file, dump_yaml(asked).encode())
            return
        there = parse_yaml(file.read_text())
        if there != asked:
            before, after = (dump_yaml(side).splitlines() for side in (there, asked))
            lines = difflib.unified_diff(before, after, n=0, lineterm="")
            changes = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            raise InputError(
                listing(
                    f"{self.path} holds a run of another config; give another directory with -o, or the same config. "
                    "It has (-), asked is (+):",
                    changes,
                )
            )


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
