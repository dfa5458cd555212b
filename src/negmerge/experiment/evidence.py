"""The evidence of a run: what it will take, the tests that a config asks for, and the verdict that follows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from negmerge.checkpoints.adapter import is_adapter
from negmerge.evidence.own_rows import own_without_reference, read_own_rows
from negmerge.evidence.protocol import Found, checked_settings, read_test
from negmerge.evidence.scale import unread
from negmerge.evidence.subject import Seeds, Shadows, Subject
from negmerge.evidence.verdict import Answer, answers_json, decide
from negmerge.experiment.config import MethodConfig, RunConfig
from negmerge.experiment.halves import asks_for_shadows, check_shadows, rows_of_shadow
from negmerge.experiment.methods import describe
from negmerge.experiment.prepare import Material
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.trainer import Trainer
from negmerge.plug_in import short_name
from negmerge.training import TrainSettings

OWN = "own-rows"
ALONE = "there is no Retrain model to compare with"
HELD_OUT = "there is no Retrain model to compare with, and the model may know the rows that were held out"


def judged_row(config: RunConfig) -> str:
    """Return the row whose claim is tested: the one named, or else consensus, the first merge, the first."""
    methods = config.methods
    if config.evidence.method is not None:
        return config.evidence.method
    rules: tuple[Callable[[MethodConfig], bool], ...] = (
        lambda method: method.name == "consensus" and method.projected is not None,
        lambda method: method.row == "consensus",
        lambda method: method.name == "consensus",
        lambda method: describe(method.name).kind == "merge",
    )
    found = (method.row for fits in rules for method in methods if fits(method))
    return next(found, methods[0].row)


def planned(config: RunConfig, material: Material, train_speed: float, predict_speed: float) -> list[dict[str, Any]]:
    """Return name and minutes of each test and of the further Retrains, from rows per second trained and predicted.

    Without Retrain only tests that can do without are made. A test reads the controls as well, each at a third of its
    cost. Raises InputError where shadow models are asked for that cannot be made.
    """
    check_shadows(config, judged_row(config))
    controls, trained = controls_of(config), config.reference.train if config.reference else None
    settings = config.base.train if trained == "base" else trained
    most = config.evidence.most
    rows = {name: min(most, count) for name, count in material.split.describe().items()}
    rows["forgotten_groups"] = len(material.about.forgotten)
    rows["seeds"] = len(config.seeds)
    rows["shadow"] = rows_of_shadow(config, material) if asks_for_shadows(config) else 0
    found: list[dict[str, Any]] = []
    if controls and isinstance(settings, TrainSettings):
        seconds = controls * settings.count_rows(len(material.split.retain)) / train_speed
        found.append({"name": f"{controls} further Retrain(s)", "minutes": seconds / 60})
    for test in config.evidence.tests:
        held = read_test(test.name)
        if config.reference is None and held.against_unseen is None:
            found.append({"name": short_name(test.name), "minutes": 0.0})
            continue
        cost = held.cost(checked_settings(test.name, test.settings), rows)
        seconds = cost.trained / train_speed + cost.evaluated / predict_speed
        times = 1 + controls / 3 if held.controlled else 1
        found.append({"name": short_name(test.name), "minutes": seconds * times / 60})
    return found


def controls_of(config: RunConfig) -> int:
    """Return how many further Retrains are trained: none where Retrain was given as a checkpoint."""
    trained = config.reference is not None and config.reference.train is not None
    return config.evidence.controls if trained and config.evidence.tests else 0


def make_controls(trainer: Trainer) -> list[Path]:
    """Train further Retrains, each from a seed of its own, unless they are there, and return their checkpoints."""
    wanted = controls_of(trainer.config)
    reference = trainer.config.reference
    if not wanted or reference is None:
        return []
    settings, rows = trainer.train_settings(reference), trainer.material.parts["retain"]
    folder = trainer.place.private / "controls"
    jobs = [
        trainer.job(f"retrain-{i}", folder / str(i), rows, settings, part=f"from scratch {i}")
        for i in range(1, wanted + 1)
    ]
    workers = min(len(jobs), trainer.config.workers or trainer.cores)
    trainer.train(jobs, threads=max(1, trainer.threads // workers), workers=workers)
    return [job.checkpoint for job in jobs]


def asks_for_seeds(config: RunConfig) -> bool:
    """Return whether a test looks at the models of all seeds."""
    return any(read_test(test.name).SEEDS for test in config.evidence.tests)


def gather(
    trainer: Trainer,
    model: Path,
    controls: Sequence[Path],
    scores: Mapping[str, Mapping[str, Any]],
    seeds: Seeds | None = None,
    shadows: Callable[[int], Shadows] | None = None,
) -> dict[str, Any]:
    """Make every test, and return `evidence` and `verdict` as they stand in the results.

    `controls` are further Retrains, read as the judged `model` is. `scores` are those of the `base` and of the judged
    `model`, for the rule without Retrain. `seeds` are the models of all seeds, for tests that ask for them; `shadows`
    makes so many models as the judged one was made.
    """
    config, material = trainer.config, trainer.material
    parts = dict(material.parts)
    if not len(parts["test"]):
        parts["test"] = parts["validation"]  # of a user's data sets no other rows are unseen
    subject = Subject(
        material.task,
        parts,
        trainer.base,
        trainer.reference,
        model,
        trainer.seed,
        material.split.kind,
        material.device,
        config.evidence.most,
        seeds,
    )
    if trainer.reference is None:
        found = _without_reference(config, material, subject, scores)
    else:
        pool = sorted(path.parent for path in trainer.place.private.glob("pool/*/training.json"))
        members = tuple(path if is_adapter(path) else path / "model.safetensors" for path in pool)
        further = tuple(controls)
        judged = replace(
            subject, folder=trainer.place.path, members=members, shipped=(model,), references=further, shadows=shadows
        )
        beside = [
            replace(subject, model=one, references=further[:i] + further[i + 1 :]) for i, one in enumerate(further)
        ]
        found = _with_reference(config, judged, beside, trainer.place)
    head = {"method": judged_row(config), "seed": trainer.seed, "most": config.evidence.most}
    return {**found, "evidence": {**head, **found["evidence"]}}


def _with_reference(config: RunConfig, subject: Subject, controls: Sequence[Subject], place: RunDir) -> dict[str, Any]:
    first, own = read_own_rows(subject, controls)
    made, seconds = {}, {}
    # Shadow models lie in the run directory, where other tests look: they are there before these begin.
    for test in sorted(config.evidence.tests, key=lambda test: not read_test(test.name).SHADOWS):
        name, held = short_name(test.name), read_test(test.name)
        settings = checked_settings(test.name, test.settings)
        place.emit("testing", test=name)
        started = time.perf_counter()
        beside = controls if held.controlled else ()
        found = held.run(subject, settings).beside([held.run(one, settings) for one in beside])
        made[name] = Answer(name, held.WEIGHT, found)
        seconds[name] = time.perf_counter() - started
        counted = found.counted
        place.emit("tested", test=name, position=counted.position, informative=counted.informative)
    answers = [made[short_name(test.name)] for test in config.evidence.tests]
    verdict = decide(own, answers, rows=f"{subject.task.NOUN}s")
    listed = [Answer(OWN, "description", first), *answers]
    return {
        "evidence": {"own": own, "controls": len(controls), "tests": answers_json(listed, {OWN: 0.0, **seconds})},
        "verdict": verdict.as_json(),
    }


def _without_reference(
    config: RunConfig, material: Material, subject: Subject, scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Read own rows, and the tests that can do without Retrain, against unseen rows of the same kind."""
    rows = material.split.describe()
    may_know = material.about.may_know
    erased = material.split.kind in ("class", "source") or bool(material.about.forgotten)
    erased = (erased and config.selection.objective != "match-holdout") or may_know
    part = "test_forget" if erased else "test" if rows["test"] else "validation"
    known = {role: scores[role] for role in ("base", "model")}
    unseen = None if may_know else known["model"].get(part)
    counts = rows["forget"], rows[part]
    own = own_without_reference(known["base"]["forget"], known["model"]["forget"], unseen, counts, erased)
    answers, seconds = [], {}
    for test in config.evidence.tests:
        name, held = short_name(test.name), read_test(test.name)
        started = time.perf_counter()
        why = ALONE if held.against_unseen is None else HELD_OUT if may_know else ""
        if why or held.against_unseen is None:
            found = Found((unread(name, why),), f"Not made: {why}.")
        else:
            found = held.against_unseen(subject, checked_settings(test.name, test.settings))
        answers.append(Answer(name, held.WEIGHT, found))
        seconds[name] = time.perf_counter() - started
    both_ends = not erased and unseen is not None
    verdict = decide(own, answers, reference=False, both_ends=both_ends, rows=f"{material.task.NOUN}s")
    return {
        "evidence": {"own": own, "controls": 0, "tests": answers_json(answers, seconds)},
        "verdict": verdict.as_json(),
    }
