"""A user's own module and data sets through the whole pipeline, in this process."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.utils.data import Dataset

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.choices import EvidenceConfig
from negmerge.experiment.config import PoolConfig, RunConfig, SelectionConfig
from negmerge.experiment.evidence_checks import check_evidence, check_evidence_task, check_lasting
from negmerge.experiment.exporting.row import shipped_row
from negmerge.experiment.methods import (
    AUTO,
    LIKE_UNSEEN,
    check_origin,
    check_settings,
    check_task,
    chosen_method,
    needs_of,
)
from negmerge.experiment.pipeline import run_stages
from negmerge.experiment.prepare import About, Material
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.unlearned import Unlearned, gather, write_page
from negmerge.experiment.user_defaults import can_project, default_buffers, default_projection
from negmerge.experiment.user_projection import asked_projection, check_labels, check_not_forgotten, user_projection
from negmerge.requests.split_files import PARTS, save_split
from negmerge.requests.splits import Split
from negmerge.selection import OBJECTIVES
from negmerge.tasks.compute import Compute
from negmerge.tasks.user.batches import Loading, forward_batch, loss_of_batch
from negmerge.tasks.user.checking import (
    answers_next_token,
    check_data,
    check_evaluation,
    check_loader,
    check_loss,
    check_module,
    count_classes,
    is_drawn_among,
)
from negmerge.tasks.user.fingerprint import fingerprint_data, fingerprint_function, fingerprint_module
from negmerge.tasks.user.task import UserClassifier, UserTask
from negmerge.training.adapters import AdapterSettings, plain_module

DEFAULT_POOL: dict[str, Any] = {
    "train": {"optimizer": "adamw", "batch_size": 32},
    "grid": {"lr": [1e-4, 3e-4, 1e-3], "epochs": [4, 8, 12]},
}


class UserConfig(RunConfig):
    """A run on a user's own module and data sets; `inputs` are their hashes, by the name of the argument."""

    inputs: dict[str, str]


def unlearn(
    model: nn.Module,
    forget: Dataset[Any],
    retain: Dataset[Any] | None = None,
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    validation: Dataset[Any] | None = None,
    reference: nn.Module | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    loader: Mapping[str, Any] | None = None,
    pool: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    method: str = AUTO,
    settings: Mapping[str, Any] | None = None,
    projection: Mapping[str, Any]
    | Literal["auto", "none", "retain", "validation"]
    | float
    | Sequence[float]
    | None = "auto",
    buffers: Mapping[str, Any] | Literal["auto", "keep", "negate"] = "auto",
    evidence: Mapping[str, Any] | Sequence[str] | None = None,
    seed: int = 0,
    directory: Path | str | None = None,
    key: str | None = None,
    report: Path | str | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Unlearned:
    """Make a copy of `model` forget the data set `forget`.

    A pool is fine-tuned from the model on `forget` alone, one member for each combination of `pool["grid"]` over
    `pool["train"]` (settings as in a config; augmentation and label smoothing are the data set's and the loss's own
    affair and are refused). The members are merged by `method` ("auto": uniform for rows that are to become like unseen
    ones, but consensus of 2 or 3 members and for what goes as a whole: docs/choosing.md), α is chosen with `selection`
    (objective, floor, search, step, max_alpha), and θ₀ − α·τ is returned in a new module on the device of `model`;
    `model` keeps its weights. A method that trains (`salun`, `fine-tune`, …) works as in a config, as far as the model
    and data have what it needs.

    With `pool["adapter"]` (r, alpha, targets) members are LoRA adapters that share one draw of A, and only these are
    stored. A module that PEFT wrapped is taken with its adapter merged, and its members are adapters of the same rank,
    scale and layers; what is merged and negated is ΔW, so the new module is a plain one.

    A batch is what a DataLoader makes of the data set, with `collate_fn` and further arguments in `loader`.
    `forward(model, batch)` returns outputs (default: `model(**batch)` for a mapping, else `model(batch[0])`) and
    `loss(outputs, batch)` a scalar (default: `outputs.loss`, or cross-entropy of the logits with `batch["labels"]` or
    `batch[1]`). `evaluate(model)` returns at least `forget` and `retain` in percent, and whatever else should stand in
    the curve; by default both are accuracies, `retain` on the data set of that name. Labels are one for each row, or
    one for each token (logits [b, L, classes], labels [b, L]); those of −100 count nowhere. Where the outputs' own loss
    is that of the next token, as of causal language models, the accuracies are too.

    Unless `selection` names an objective it follows from what is given: match-reference with a `reference`;
    match-holdout with `validation`, where every class of the forget rows stands in `retain` as well (single rows are to
    be forgotten, not a class); else retain-floor. match-holdout needs `validation`, a data set of rows that the model
    has not seen, or an `evaluate` that returns `holdout`. match-reference needs `reference`, a module that never saw
    the forget rows, and `validation` for the average gap, or an `evaluate`: its scores are then compared, each as much
    as the others.

    `projection` strips the merged vector of what acts on retain inputs, layer by layer, before α is chosen:
    `{"rows": "retain", "samples": 600, "strength": [1, 10, 100]}` with what is left out as here. `rows` may also be
    "validation", or a data set of whatever rows are at hand, labels or none, but none that are to be forgotten. Rows
    ("retain") or strengths (10, or [1, 10]) may stand there alone. The results then have a row of `method`
    without projection and one with it; the better by the objective is returned, the projected one where they are
    equal, or the one that `evidence` judged. "auto", the default, projects on `retain` where the model has layers whose
    inputs can be seen and the objective is retain-floor, or matches unseen rows or Retrain (strengths 1 and 10 then);
    "none", or None, leaves it out.

    `buffers` says what becomes of running statistics (batch normalisation) after the merge: "keep" (the base's),
    "negate" (merged and negated like weights), or `{"recalibrate": "forget", "rows": 2000}` (or "retain"). "auto", the
    default, estimates them again on forget rows where these are 100 or more, drawn among others of their classes, and
    matched with unseen rows or Retrain; it keeps them everywhere else.

    `evidence` are tests of the claim that the new module forgot, named as in `negmerge list evidence`, or a mapping as
    in a config: `{"tests": ["quantisation", {"name": "relearning", "factors": [1.0]}], "most": 500}`. They read it
    beside `model` and `reference` (without one the verdict is at best "not refuted"), and `results` then has `evidence`
    and `verdict`. `validation` stands in the place of test rows.

    The members are trained one after the other in this process. With `directory` the run is kept there, with its
    results and report, and the same call again takes over what is done; a call with other inputs is refused. What
    cannot be hashed (a closure, rows that are drawn at random) is named by `key`. `report` is a folder that gets
    the report of the run. Both get `split.json`, in which every forgotten row stands by its index in `forget` (of a
    `Subset`: in what it is a subset of) and its hash.

    Raises InputError, before anything is trained, for wrong settings, an empty `forget`, neither `retain` nor
    `evaluate`, an objective that lacks its data set or reference, a model that cannot be trained, outputs or labels
    that are not understood, and a method that the task cannot serve.

    >>> from torch.utils.data import TensorDataset
    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long()
    >>> data = TensorDataset(x, y)
    >>> done = unlearn(nn.Linear(4, 2), data, data, pool={"grid": {"lr": [1e-3, 1e-2], "epochs": [1]}})
    >>> len(done.members)
    2

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583).
    """
    check_module(model)
    model, wrapped = plain_module(model)
    reference = None if reference is None else plain_module(reference)[0]
    if retain is None and evaluate is None:
        raise InputError("unlearn: give retain (a data set) or evaluate (a function), so that α can be chosen")
    sets = {"forget": forget, "retain": retain, "validation": validation}
    given = {name: data for name, data in sets.items() if data is not None}
    wished = asked_projection(projection)
    protected = None if isinstance(wished, str) else user_projection(wished, given, method)
    for name, data in given.items():
        check_data(name, data)
    check_not_forgotten(given)
    check_loader(loader or {})
    bare = UserTask(
        model, given, forward or forward_batch, loss or loss_of_batch, Loading(collate_fn, dict(loader or {}))
    )
    rule: SelectionConfig = _checked(SelectionConfig, selection or {}, "selection")
    if rule.objective == "auto":
        rule = _checked(
            SelectionConfig, {**(selection or {}), "objective": _objective(bare, evaluate, reference)}, "selection"
        )
    claims = _claims(evidence)
    _check_objective(rule.objective, given, evaluate, reference, bool(claims.tests))
    check_lasting(rule, "unlearn")
    asked = (selection or {}).get("floor_on")
    if asked in ("validation", "both") and ("validation" not in given or evaluate is not None):
        raise InputError(
            f"unlearn: selection.floor_on: {asked} needs validation (a data set), and no evaluate; leave floor_on out"
        )
    made = _checked_pool(pool or DEFAULT_POOL, wrapped)
    method = chosen_method(method, rule.objective in LIKE_UNSEEN, len(made.members()), settings)
    check_settings(method, settings or {})
    task = _task(bare, evaluate, rule.objective)
    _check_method(task, method, settings or {}, given)
    check_labels(task)
    if wished == AUTO and can_project(task, given, method):
        protected = default_projection(rule.objective)
    inputs = {"model": fingerprint_module(model)}
    if reference is not None:
        inputs["reference"] = fingerprint_module(reference)
    if directory is not None:
        functions = {"forward": forward, "loss": loss, "evaluate": evaluate, "collate_fn": collate_fn}
        inputs |= _fingerprints(given, functions, key)
    config: UserConfig = _checked(
        UserConfig,
        {
            "name": "unlearn",
            "seeds": [seed],
            "workers": 1,
            "threads": torch.get_num_threads(),
            "base": {"checkpoint": "base/model.safetensors"},
            "reference": "none" if reference is None else {"checkpoint": "reference/model.safetensors"},
            "pool": made.model_dump(),
            "buffers": default_buffers(task, rule.objective, made, method) if buffers == "auto" else buffers,
            "methods": [{"name": method, **(settings or {})}],
            "projection": protected or "none",
            "selection": rule.model_dump(),
            "evidence": claims.model_dump(),
            "inputs": inputs,
        },
        "settings",
    )
    _check_claims(config, task)
    with ExitStack() as stack:
        folder = Path(directory) if directory else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = RunDir(folder, on_event)
        kept = directory is not None or report is not None

        def prepared() -> Material:
            for name, module in (("base", model), ("reference", reference)):
                target = folder / name / "model.safetensors"
                if module is not None and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_state_dict(target, task.trained(module))
            return _material(task, rule.objective, inputs, folder if kept else None)

        with place.lock():
            results = run_stages(place, config, prepared, "negmerge.unlearn")
            if kept:
                write_page(folder, None if report is None else Path(report))
            return gather(task, folder, results, shipped_row(config.resolved(), results))


def _checked_pool(pool: Mapping[str, Any], wrapped: AdapterSettings | None) -> PoolConfig:
    """Return the pool, its members adapters like that of the module where PEFT wrapped it and nothing else is asked."""
    made: PoolConfig = _checked(PoolConfig, pool, "pool")
    if wrapped is not None and made.adapter is None:
        made = made.model_copy(update={"adapter": wrapped})
    for member in made.members():
        if member.settings.augment != "none" or member.settings.label_smoothing:
            raise InputError("unlearn: augment and label_smoothing belong into your data set and loss; leave them out")
    return made


def _objective(
    bare: UserTask, evaluate: Callable[[nn.Module], Mapping[str, float]] | None, reference: nn.Module | None
) -> str:
    """Return the objective that the arguments ask for."""
    if reference is not None:
        return "match-reference"
    unseen = evaluate is None and "validation" in bare.sets
    return "match-holdout" if unseen and is_drawn_among(bare) else "retain-floor"


def _task(bare: UserTask, evaluate: Callable[[nn.Module], Mapping[str, float]] | None, objective: str) -> UserTask:
    """Return the task of these data sets, once one small batch has been passed through the model and scored."""
    if evaluate is not None:
        with torch.no_grad():
            names = check_evaluation(evaluate(bare.template().eval()), OBJECTIVES[objective].keys[0])
        task = replace(bare, evaluate=evaluate, names=names)
    else:
        parts = (bare.model, bare.sets, bare.forward, bare.objective, bare.loading)
        classes = count_classes(bare)
        task = UserClassifier(*parts, classes=classes, next_token=answers_next_token(bare))
    check_loss(task)
    return task


def _claims(evidence: Mapping[str, Any] | Sequence[str] | None) -> EvidenceConfig:
    """Return the tests that are asked for, by name or as a config has them."""
    asked = evidence if isinstance(evidence, Mapping) else {"tests": list(evidence or ())}
    claims: EvidenceConfig = _checked(EvidenceConfig, asked, "evidence")
    return claims


def _check_claims(config: UserConfig, task: UserTask) -> None:
    """Let the tests judge the last row, which is returned, unless another is named; raise InputError as in a config."""
    claims, rows = config.evidence, [one.row for one in config.methods]
    if claims.tests:
        config.evidence = claims.model_copy(update={"method": claims.method or rows[-1]})
        check_evidence(config.evidence, rows, "unlearn")
        check_evidence_task(config.evidence, task)


def _check_method(task: UserTask, method: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise InputError for a method that lacks a data set, or a capability of the task."""
    missing = [need for need in needs_of(method, settings) if need in ("retain", "validation") and need not in given]
    if missing:
        raise InputError(f"unlearn: the method {method} needs {missing[0]} (a data set)")
    check_task(method, task)
    check_origin(method, settings, False, f"unlearn: the method {method}")


def _material(task: UserTask, objective: str, inputs: Mapping[str, str], kept_in: Path | None) -> Material:
    """Return what the stages work on; the split is written where the run is kept."""
    parts = {**{name: torch.empty(0, dtype=torch.int64) for name in PARTS}, **task.parts()}
    # Rows that should only become like unseen ones are chosen rows; otherwise they are to be forgotten as a whole.
    kind = "source" if objective == "retain-floor" else "rows"
    split = Split(
        kind,
        retain=parts["retain"],
        forget=parts["forget"],
        validation=parts["validation"],
        validation_forget=parts["validation_forget"],
        test=parts["test"],
        test_forget=parts["test_forget"],
    )
    if kept_in is not None:
        save_split(kept_in / "split.json", split, task.rows())
    about = About(f"forget {len(parts['forget']):,} rows", "your own data", type(task.model).__name__, {})
    entries = tuple({"path": name, "bytes": 0, "hash": value} for name, value in inputs.items())
    return Material(task, split, parts, about, str(task.device), Compute(), 0, entries)


def _check_objective(
    objective: str,
    given: Mapping[str, Any],
    evaluate: Callable[..., Any] | None,
    reference: nn.Module | None,
    tested: bool,
) -> None:
    """Raise InputError where an objective lacks its data set or reference, or nobody looks at one that is given.

    `tested`: the tests of evidence look at it.
    """
    if objective != "retain-floor" and evaluate is None and "validation" not in given:
        raise InputError(f"unlearn: {objective} needs validation (a data set of rows that the model has not seen)")
    if objective == "match-reference" and reference is None:
        raise InputError("unlearn: match-reference needs reference (a module that never saw the forget rows)")
    if objective == "lasting" and reference is None:
        raise InputError("unlearn: lasting needs reference (a module that never saw the forget rows)")
    if objective not in ("match-reference", "lasting") and reference is not None and not tested:
        raise InputError(f"unlearn: {objective} does not look at a reference; leave it out, or choose match-reference")


def _fingerprints(
    sets: Mapping[str, Dataset[Any]], functions: Mapping[str, Callable[..., Any] | None], key: str | None
) -> dict[str, str]:
    """Return the hash of every data set and function, or the key. Raises InputError where neither is there."""
    found = {name: fingerprint_data(data) for name, data in sets.items()}
    found |= {name: fingerprint_function(function) for name, function in functions.items()}
    unknown = [name for name, value in found.items() if value is None]
    if unknown and key is None:
        raise InputError(
            f"unlearn: {', '.join(unknown)} cannot be hashed (rows that change, an object, a closure), so directory "
            "cannot tell whether what it holds was made from it: give key, a text that you change with it, or leave "
            "directory out"
        )
    return {name: f"key {key}" if value is None else value for name, value in found.items()}


def _checked(schema: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return TypeAdapter(schema).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise InputError(f"unlearn: {place}: {first['msg']}, got {first['input']!r}") from None
