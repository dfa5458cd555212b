"""What forgetting costs elsewhere, by policy for running statistics and by retain projection.

    python benchmarks/projection.py CONFIG FOLDER [--set KEY=VALUE]… [--write PAGE]

Trains base and pool of a config twice, with moving and with frozen running statistics, in FOLDER, and negates merges of
them in steps of α 30 % apart until at most 1 % of what is to be forgotten is recognised, on forget rows or unseen rows
of their kind, whichever is more (for a request without such rows: until half of the base's lead over unseen rows is
gone). Numbers are accuracies on other test rows there. The same command goes on where it was stopped.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from negmerge.execution import torch_threads
from negmerge.experiment.choices import Recalibrate
from negmerge.experiment.config import load_config
from negmerge.experiment.prepare import Material, prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun
from negmerge.merging.engine import merge_vector
from negmerge.projection import MomentRows, Moments, Projection, project_vector, write_moments
from negmerge.seeding import derive_seed
from negmerge.selection.negated_model import NegatedModel
from training import write

STEP, FIRST, MOST = 1.3, 0.1, 26
BATCH = 50
STRENGTHS = (1.0, 10.0, 100.0)
MERGES = {"mean": "uniform", "consensus": "consensus"}
POLICIES: dict[str, Any] = {
    "keep": "keep",
    "negate": "negate",
    "recalibrate on retain rows": Recalibrate(recalibrate="retain", rows=1000),
    "recalibrate on forget rows": Recalibrate(recalibrate="forget", rows=1000),
}


def sample(rows: torch.Tensor, count: int, seed: int, purpose: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, purpose))
    return rows[torch.randperm(len(rows), generator=generator)[:count].sort().values]


class Yardstick:
    """Fixed samples of a run's rows, and what models and negated vectors do on them."""

    def __init__(self, material: Material, seed: int, evaluated: int) -> None:
        self.material, parts = material, material.parts
        self.parts = {part: sample(parts[part], evaluated, seed, f"probe {part}") for part in ("test", "forget")}
        self.unseen = "test_forget" if len(parts["test_forget"]) else "validation"
        self.parts[self.unseen] = sample(parts[self.unseen], evaluated, seed, "probe unseen")
        self.parts["retain"] = sample(parts["retain"], evaluated // 2, seed, "probe retain")

    def scores(self, model: torch.nn.Module) -> dict[str, float]:
        """Return the accuracy on each part in percent, and the mean loss on retain rows."""
        columns = {part: ("correct", "loss") for part in self.parts}
        seen = self.material.task.observe(model, self.parts, columns)
        scores = {part: 100 * float(one["correct"].double().mean()) for part, one in seen.items()}
        return {**scores, "retain_loss": float(seen["retain"]["loss"].double().mean())}

    def known(self, point: Mapping[str, float]) -> float:
        """Return what is still known of the request: the class, in percent; of rows, the lead over unseen ones."""
        if self.unseen == "validation":
            return point["forget"] - point["validation"]
        return max(point["forget"], point["test_forget"])

    def curve(self, negated: NegatedModel, file: Path) -> list[dict[str, float]]:
        """Return the scores at every step of α, until the request is forgotten or all is lost; kept in a file."""
        if file.exists():
            found: list[dict[str, float]] = json.loads(file.read_text())
            return found
        points: list[dict[str, float]] = []
        for alpha in (0.0, *(FIRST * STEP**i for i in range(MOST))):
            points.append({"alpha": alpha, **self.scores(negated.set_alpha(alpha))})
            if self._is_done(points):
                break
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(points))
        return points

    def _is_done(self, points: list[dict[str, float]]) -> bool:
        known, first = self.known(points[-1]), self.known(points[0])
        least = 0.0 if self.unseen == "validation" else 1.0
        return known <= least or (points[-1]["test"] < 0.3 * points[0]["test"]) or first <= least

    def at(self, points: list[dict[str, float]], share: float) -> dict[str, float] | None:
        """Return the first point where at most so much is known."""
        return next((point for point in points if self.known(point) <= share), None)


class Probe:
    """A pool of one config, with its statistics moving or frozen, and what any vector does to the base."""

    def __init__(self, path: Path, changes: list[str], folder: Path, frozen: bool, rows: int, evaluated: int) -> None:
        name = "frozen" if frozen else "moving"
        changes = [*changes, f"pool.train.freeze_statistics={str(frozen).lower()}", "reference=none"]
        self.place = RunDir(folder / name)
        config = load_config(path, changes)
        self.seed = config.seeds[0]
        with self.place.lock():
            self.material = prepare(self.place, config)
            self.run = SeedRun(self.place, config, self.material, self.seed)
            self.run.trainer.make_originals()
            self.run.ground = self.run._ground()
            jobs, self.pool = self.run._make_pool()
        self.members = [job.checkpoint for job in jobs]
        self.rows, self.work = rows, self.place.private / "probe"
        self.yardstick = Yardstick(self.material, self.seed, evaluated)

    def moments(self) -> Path:
        path, task, device = self.work / "moments.safetensors", self.material.task, self.material.device
        if not path.exists():
            started = time.perf_counter()
            drawn = {p: sample(self.material.parts[p], self.rows, self.seed, "moments") for p in ("forget", "retain")}

            def rows_of(part: str) -> MomentRows:
                pieces = drawn[part].split(BATCH)
                return MomentRows(lambda: (task.batch(piece, device) for piece in pieces), len(drawn[part]), part)

            model, first = task.open(self.run.base, device), task.batch(drawn["forget"][:2], device)
            write_moments(path, model, rows_of("forget"), rows_of("retain"), task.run_model, first, {})
            (self.work / "moments.json").write_text(json.dumps({"seconds": time.perf_counter() - started}))
        return path

    def vector(self, merge: str, buffers: str, strength: float | None, others: str) -> Path:
        policy = "negate" if buffers == "negate" else "keep"
        plain = self.work / f"{merge}-{policy}.safetensors"
        if not plain.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            members, method = self.members, MERGES.get(merge, "task-arithmetic")
            if merge == "single":
                members = [self.members[len(self.members) // 2]]
            merge_vector(self.run.base, members, plain, method=method, buffers=policy)
        if strength is None:
            return plain
        projected = self.work / f"{merge}-{policy}-{strength:g}-{others}.safetensors"
        with Moments(self.moments()) as moments:
            project_vector(Projection(moments, strength, others), plain, projected)
        return projected

    def curve(self, merge: str, buffers: str, strength: float | None, others: str) -> list[dict[str, float]]:
        """Return the accuracies at every step of α; kept in a file."""
        name = f"{merge}-{buffers}-{strength}-{others}".replace(" ", "-")
        vector = self.vector(merge, buffers, strength, others)
        negated = self.run.selector.negated(self.run.base, vector, POLICIES[buffers])
        return self.yardstick.curve(negated, self.work / f"{name}.json")


def variants(buffers: list[str], merges: list[str], strengths: list[float]) -> Iterator[tuple[str, str, Any, str]]:
    """Yield merge, policy, strength and what becomes of tensors without inputs, for each line of the table."""
    for policy in buffers:
        own = "keep" if policy == "negate" else "leave-out"  # left out, negated statistics would be kept ones
        for merge in merges if policy == buffers[0] else merges[:1]:
            yield merge, policy, None, "keep"
            for strength in strengths:
                yield merge, policy, strength, own
        if own == "leave-out":
            yield merges[0], policy, 10.0, "keep"


def main() -> None:
    """Measure every variant, and print or write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--rows", type=int, default=600, help="rows of either kind whose moments are taken")
    parser.add_argument("--evaluated", type=int, default=1000, help="rows of each part that are looked at")
    parser.add_argument("--merges", nargs="+", default=["mean", "consensus", "single"])
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS))
    parser.add_argument("--buffers", nargs="+", default=list(POLICIES))
    parser.add_argument("--pools", nargs="+", default=["moving", "frozen"])
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    arguments = parser.parse_args()
    levels = (5.0, 1.0)
    header = ["statistics of the members", "running statistics", "merge", "λ", "others"]
    lines: list[str] = []
    with torch_threads(1):
        for pool in arguments.pools:
            frozen = pool == "frozen"
            probe = Probe(
                arguments.config, arguments.changes, arguments.folder, frozen, arguments.rows, arguments.evaluated
            )
            if probe.yardstick.unseen == "validation":
                levels = (5.0, 0.0)
            policies = ["keep"] if frozen else arguments.buffers
            for merge, policy, strength, others in variants(policies, arguments.merges, arguments.strengths):
                points = probe.curve(merge, policy, strength, others)
                found = [probe.yardstick.at(points, level) for level in levels]
                numbers = ["–" if p is None else f"{p['test']:.1f} ({p['retain_loss']:.3f})" for p in found]
                told = ["–", "–"] if strength is None else [f"{strength:g}", others.replace("leave-out", "left out")]
                end = f"{probe.yardstick.known(points[-1]):.1f} / {points[-1]['test']:.1f}"
                line = "| " + " | ".join([pool, policy, merge, *told, *numbers, end]) + " |"
                print(line, flush=True)
                lines.append(line)
    titles = [*header, *(f"others at ≤ {level:g} (retain loss)" for level in levels), "where it ended: known / others"]
    table = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles), *lines]
    if arguments.write:
        write(arguments.write, "\n".join(table))


if __name__ == "__main__":
    main()
