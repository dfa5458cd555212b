"""A folder that serves clients and forgets them exactly: vectors and masks, their sum, and who is no longer there."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from negmerge.checkpoints import hash_file, open_checkpoint, write_bytes_atomic, write_state_dict
from negmerge.errors import InputError, NegmergeError, listing, nearest
from negmerge.exact.client import ClientJob, train_client
from negmerge.exact.config import ExactConfig, check_exact
from negmerge.exact.population import Population, load_population
from negmerge.exact.sift_masks import crossed, write_served, write_sum
from negmerge.execution import run_jobs
from negmerge.experiment.keys import digest
from negmerge.experiment.rundir import OnEvent, RunDir
from negmerge.merging.output.folder import check_output
from negmerge.parsing import dump_yaml, parse_yaml
from negmerge.seeding import derive_seed

CONFIG, DELETED, SUM, KEY, GROUND = "config.yaml", "deleted.json", "sum.json", "key.json", "ground.json"
LOG, SCRATCH = "events.jsonl", "scratch"
FILES = (CONFIG, DELETED, SUM, KEY, GROUND, LOG, ".lock", "base.safetensors", "sum.safetensors", "clients")


@dataclass(frozen=True)
class Service:
    """The folder of a service.

    `config.yaml`, `base.safetensors` (θ₀), `clients/HASH/` (vector, facts), `sum.safetensors` and `sum.json` (of which
    vectors), `deleted.json` (names that are never trained again). No rows are kept, and of a deleted client
    not even what `events.jsonl` said. Every change is whole or can be
    repeated: a request is written down first, then files are removed, then the sum is formed anew, and whatever is
    asked next ends what was begun.
    """

    directory: Path
    on_event: OnEvent | None = field(default=None, compare=False)

    @property
    def base(self) -> Path:
        """The file of θ₀."""
        return self.directory / "base.safetensors"

    @cached_property
    def config(self) -> ExactConfig:
        """The config that the service was begun with. Raises InputError for a folder that is none."""
        file = self.directory / CONFIG
        if not file.is_file():
            raise InputError(f"{self.directory} is no service; make one: negmerge exact learn CONFIG -o DIR")
        return check_exact(parse_yaml(file.read_text()), str(file))

    @property
    def deleted(self) -> list[str]:
        """The names of the clients that were deleted, in the order of the requests."""
        return list(self._read(DELETED, {"clients": []})["clients"])

    @property
    def clients(self) -> list[str]:
        """The clients that are there, sorted by name: the order of the sum."""
        gone = self.deleted
        found = {file: _read_json(file).get("name", "") for file in self.directory.glob("clients/*/training.json")}
        for file, name in found.items():
            if self._folder(name) != file.parent:
                raise NegmergeError(
                    f"{file} is of the client {name!r}, whose folder is another; put back what was there"
                )
        return sorted(name for name in found.values() if name not in gone)

    def learn(self, config: ExactConfig) -> dict[str, Any]:
        """Train every client that is not there yet and was not deleted, and form the sum; return what is there.

        Interrupted, it goes on where it stopped. Raises InputError for a service that was begun with another base,
        model, training or seed, and for groups that the rows do not have.
        """
        with self._place.lock():
            self._begin(config)
            population = load_population(config)
            asked = population.names if config.clients.groups == "all" else list(config.clients.groups)
            unknown = [name for name in asked if name not in population.rows and name not in self.deleted]
            if unknown:
                raise InputError(f"clients.groups: no group {unknown[0]!r}{nearest(unknown[0], population.names)}")
            if not self.base.exists():
                write_state_dict(self.base, population.base(config))
            if not (self.directory / KEY).exists():
                self._write(KEY, {"base": hash_file(self.base)})
            wanted = [self.job(config, population, name) for name in asked if name not in self.deleted]
            done = sum(job.is_done for job in wanted)
            self._place.emit("training", jobs=len(wanted), done=done)
            run_jobs(train_client, wanted, workers=config.workers, threads=config.threads, on_done=self._tell)
            self._settle()
            return self.state()

    def forget(self, names: Sequence[str]) -> dict[str, Any]:
        """Delete clients: their vectors and masks go, and the sum is formed anew over the others; return what is there.

        A client that was deleted before is nothing new, and one whose training did not end can be deleted too. Raises
        InputError for a name that is unknown, and NegmergeError where a file cannot be removed.
        """
        with self._open():
            there, gone = self.clients, self.deleted
            known = [*there, *gone]
            unknown = [name for name in names if name not in known and not self._folder(name).exists()]
            if unknown:
                raise InputError(f"{self.directory} has no client {unknown[0]!r}{nearest(unknown[0], there)}")
            added = [name for name in dict.fromkeys(names) if name not in gone]
            self._write(DELETED, {"clients": [*gone, *added]})
            self._settle()
            return self.state()

    def serve(self, output: Path, client: str | None = None, overwrite: bool = False) -> str:
        """Write the model of a client, or the one for rows of no client, to a .safetensors file; return its hash.

        With `overwrite` a file with tensors of the base's names and shapes is replaced. Raises InputError for a client
        that is not there, and for an OUT in the service, one that is its base's checkpoint, and any other file that is
        there.
        """
        if output.suffix != ".safetensors":
            raise InputError(f"OUT {output} must end in .safetensors")
        with self._open() as config:
            self._check_out(output, config, overwrite)
            there = self.clients
            if client is not None and client not in there:
                why = "was deleted" if client in self.deleted else f"is not there{nearest(client, there)}"
                raise InputError(f"client {client!r} {why}; without --client OUT is the model for rows of no client")
            vector = None if client is None else self._vector(client)
            write_served(output, self.base, self._sum, len(there), vector)
            return hash_file(output)

    def state(self) -> dict[str, Any]:
        """Return the clients with rows, shares and hashes, who was deleted, and the hashes of base and sum."""
        facts = [self._facts(name) for name in self.clients]
        return {
            "clients": [
                {k: one[k] for k in ("name", "rows", "elements", "kept", "seconds", "vector")} for one in facts
            ],
            "deleted": self.deleted,
            "base": hash_file(self.base),
            "sum": self._read(SUM, {"hash": None})["hash"],
        }

    def verify(self, again: Sequence[str] = ()) -> dict[str, Any]:
        """Check that the sum is what the clients that are there come to, and nothing is left of the deleted ones.

        Hashes of base and vectors are those written down; no element of a vector is on the other side of v; the sum
        formed anew has the same hash; no folder belongs to a deleted client, and no other file lies in the service.
        Clients in `again` are trained once more, and their vectors must have the same bits: that is what ties a vector
        to its rows. Returns what was checked. Raises NegmergeError that lists what is not as it should be.
        """
        with self._open() as config:
            there = self.clients
            lost = [name for name in there if not self._vector(name).exists()]
            wrong = [f"client {name}: its vector is gone; learn again" for name in lost]
            if hash_file(self.base) != self._read(KEY, {}).get("base"):
                wrong.append("base.safetensors is not the base that the service was begun with")
            for name in (one for one in there if one not in lost):
                if hash_file(self._vector(name)) != self._facts(name)["vector"]:
                    wrong.append(f"client {name}: its vector changed")
                elif crossed(self._vector(name), self._sign_seed(config)):
                    wrong.append(f"client {name}: its vector is not of one sign with v")
            if not lost:
                wrong += self._compare_sum(again)
            kept = {self._folder(name).name for name in there}
            wrong += [
                f"{p} belongs to no client: learn to its end, or remove it"
                for p in sorted(self.directory.glob("clients/*"))
                if p.name not in kept
            ]
            strangers = sorted(p.name for p in self.directory.iterdir() if p.name not in FILES)
            wrong += [f"{name} is no file of a service; remove it" for name in strangers if not _is_partial(name)]
            if wrong:
                raise NegmergeError(listing(f"{self.directory} does not verify:", wrong))
            return {
                "clients": len(there),
                "trained_again": list(again),
                "deleted": self.deleted,
                "sum": hash_file(self._sum),
            }

    # inside

    def _compare_sum(self, again: Sequence[str]) -> list[str]:
        """Form the sum once more and train some clients once more; return what has other bits."""
        scratch = self.directory / SCRATCH  # a fixed place: whatever comes next removes what a killed process left
        scratch.mkdir()
        try:
            self._form(scratch / "sum.safetensors")
            same = hash_file(scratch / "sum.safetensors") == hash_file(self._sum)
            differing = self._differing(again, scratch)
        finally:
            _remove(scratch)
        wrong = [] if same else ["sum.safetensors is not the sum of the vectors"]
        return [*wrong, *(f"client {name}: trained once more, its bits differ" for name in differing)]

    def _check_out(self, output: Path, config: ExactConfig, overwrite: bool) -> None:
        """Raise InputError for an OUT that is the service's own or its base's, or that may not be replaced."""
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(self.directory)):
            raise InputError(f"OUT {output} is in the service {self.directory}; choose another place")
        given = [config.base.checkpoint] if config.base.checkpoint else []
        replaced = overwrite and output.is_file() and not any(path.resolve() == output.resolve() for path in given)
        if not replaced:
            check_output(output, given, False)
        elif _layout(output) != _layout(self.base):
            raise InputError(
                f"{output} is no model of this service, so --overwrite leaves it alone; choose another OUT"
            )

    def job(self, config: ExactConfig, population: Population, name: str) -> ClientJob:
        """Return the job of a client, whose key hangs on θ₀, the settings, the seed and its own rows, on no others."""
        settings, seed = config.clients.train.model_dump(mode="json"), derive_seed(config.seed, "client", name)
        key = digest([self._ground(config), hash_file(self.base), name, population.hashes(name)])
        rows = tuple(population.rows[name])
        return ClientJob(
            name, self._folder(name), population.task, rows, settings, seed, population.device, start=self.base,
            resumable=True, key=key, sign_seed=self._sign_seed(config),
        )  # fmt: skip

    def _begin(self, config: ExactConfig) -> None:
        """Write the config down. Raises InputError for one that would train clients otherwise than those there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        known, ground = self._read(GROUND, None), self._ground(config)
        strangers = [p.name for p in self.directory.iterdir() if p.name not in (".lock", LOG)]
        if known is None and strangers:
            raise InputError(f"{self.directory} is not empty and no service; give another directory with -o")
        if known is not None and known != ground and self.base.exists():  # before that nothing was learnt
            differing = ", ".join(key for key in ground if known.get(key) != ground[key])
            raise InputError(f"{self.directory} was begun with other settings ({differing}); give another directory")
        self._write(GROUND, ground)
        write_bytes_atomic(self.directory / CONFIG, dump_yaml(config.resolved()).encode())

    @staticmethod
    def _ground(config: ExactConfig) -> dict[str, Any]:
        """Return everything that decides a client's vector but θ₀ and its rows."""
        whole = config.resolved()
        own = {key: whole[key] for key in ("task", "model", "base", "seed", "device", "compute", "threads")}
        return {**own, "train": whole["clients"]["train"]}

    @staticmethod
    def _sign_seed(config: ExactConfig) -> int:
        return derive_seed(config.seed, "signs")

    def _settle(self) -> None:
        """End what a request began: remove what is left of deleted clients, and form the sum of those there."""
        _remove(self.directory / SCRATCH)
        for name in self.deleted:
            _remove(self._folder(name))
        self._forget_events()
        of = [[name, self._facts(name)["vector"]] for name in self.clients]
        if self._read(SUM, {}).get("of") != of or not self._sum.exists():
            (self.directory / SUM).unlink(missing_ok=True)
            self._form(self._sum)
            self._write(SUM, {"of": of, "hash": hash_file(self._sum)})

    def _form(self, target: Path) -> None:
        base = open_checkpoint(self.base)
        try:
            write_sum(target, base, [self._vector(name) for name in self.clients])
        finally:
            base.close()

    def _forget_events(self) -> None:
        """Take out of the log what it says of deleted clients: how well their rows were learnt."""
        log, gone = self.directory / LOG, self.deleted
        lines = log.read_text().splitlines(keepends=True) if gone and log.exists() else []
        told = {json.dumps({"name": name})[1:-1] for name in gone}  # as emit writes it, in a line cut off too
        kept = [line for line in lines if not any(one in line for one in told)]
        if len(kept) < len(lines):
            write_bytes_atomic(log, "".join(kept).encode())

    def _differing(self, names: Sequence[str], scratch: Path) -> list[str]:
        """Return those of some clients whose vector is another when they are trained once more."""
        if not names:
            return []
        population, found = load_population(self.config), []
        for name in names:
            if name not in self.clients:
                raise InputError(f"{self.directory} has no client {name!r}{nearest(name, self.clients)}")
            if name not in population.rows:
                raise InputError(f"the data no longer hold the rows of {name!r}, so it cannot be trained once more")
            job = replace(self.job(self.config, population, name), directory=scratch / "again")
            run_jobs(train_client, [job], threads=self.config.threads)
            if job.facts()["vector"] != self._facts(name)["vector"]:
                found.append(name)
            shutil.rmtree(job.directory)
        return found

    @property
    def _sum(self) -> Path:
        return self.directory / "sum.safetensors"

    @property
    def _place(self) -> RunDir:
        return RunDir(self.directory, self.on_event)

    def _folder(self, name: str) -> Path:
        return self.directory / "clients" / sha256(name.encode()).hexdigest()[:16]

    def _vector(self, name: str) -> Path:
        return self._folder(name) / "vector.safetensors"

    def _facts(self, name: str) -> dict[str, Any]:
        return _read_json(self._folder(name) / "training.json")

    def _read(self, name: str, otherwise: Any) -> Any:
        file = self.directory / name
        return _read_json(file) if file.exists() else otherwise

    def _write(self, name: str, value: Any) -> None:
        write_bytes_atomic(self.directory / name, json.dumps(value, indent=1).encode())

    def _tell(self, job: ClientJob, facts: dict[str, Any]) -> None:
        self._place.emit("trained", name=job.name, loss=(facts["losses"] or [None])[-1], seconds=facts["seconds"])

    @contextmanager
    def _open(self) -> Iterator[ExactConfig]:
        """Hold a service that is there, and end what a request began. Raises InputError for a folder that is none."""
        config = self.config
        if not self.base.exists():
            raise InputError(f"{self.directory} has learnt nothing yet; go on: negmerge exact learn CONFIG -o DIR")
        with self._place.lock():
            self._settle()
            yield config


def _read_json(file: Path) -> dict[str, Any]:
    """Return what a file of the service holds. Raises NegmergeError for one that is damaged."""
    try:
        found = json.loads(file.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NegmergeError(f"{file} is damaged; put back what was there")
    return found


def _remove(folder: Path) -> None:
    """Remove a folder and all in it, if it is there. Raises NegmergeError where something stays."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise NegmergeError(
            f"{error.filename or folder} could not be removed ({error.strerror}); let it be removed, and ask once more"
        ) from None


def _is_partial(name: str) -> bool:
    """Whether a file is one that a killed process was writing: whoever writes the same next takes it over."""
    return name.startswith(".") and name.endswith(".partial")


def _layout(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    opened = open_checkpoint(path)
    try:
        return [(name, opened.shape(name)) for name in opened.names]
    finally:
        opened.close()
