"""From what the stages wrote to `results.json`: rows, gaps, warnings."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from negmerge.experiment.choices import Buffers, Recalibrate, describe_buffers
from negmerge.experiment.config import MethodConfig, RunConfig
from negmerge.experiment.measure import further_of, groups_without_retain
from negmerge.experiment.methods import describe, needs_of
from negmerge.experiment.prepare import Material
from negmerge.experiment.stages import Finished
from negmerge.experiment.warnings import (
    Warnings,
    by_weights,
    data_warnings,
    diverged_warnings,
    leave_one_out_warnings,
    pool_warnings,
    row_warnings,
    unlearned_members,
    unseen_warnings,
)
from negmerge.scores import Score, average_gap
from negmerge.tasks.task import ACCURACY, TESTED
from negmerge.training.pool import RANK
from negmerge.version import __version__

HELD_OUT = "held out"


def collect(config: RunConfig, material: Material, finished: Finished) -> dict[str, Any]:
    """Return the results of one seed; accuracies, attack and gaps in percent, `consensus` as a share."""
    methods = {
        m.row: _row(m, config.buffers_of(m), finished.methods[m.row])
        for m in config.methods
        if m.row in finished.methods
    }
    base: dict[str, Any] = {"label": "base", "kind": "base", "needs": [], "settings": {}, **finished.base}
    reference = finished.reference and {
        "label": "reference",
        "kind": "reference",
        "needs": ["retain"],
        "settings": {},
        **finished.reference,
    }
    further = further_of(config, material)
    for row in (base, *methods.values()):
        row |= _gap(row, reference, material.task.scores)
    kept = material.split.validation if config.selection.floor_on == "validation" else material.split.retain
    held_out = len(material.split.validation_forget)
    kind = material.split.kind
    return {
        "format": 1,
        "name": config.name,
        "negmerge": __version__,
        "request": config.request,
        "seeds": config.seeds,
        "task": {
            "kind": kind,
            "text": material.about.text,
            "source": material.about.source,
            "noun": material.task.NOUN,
            **({} if material.task.MEASURE == ACCURACY else {"measure": material.task.MEASURE}),
            **({} if TESTED in material.task.BY_GROUP[0] else _by_group(material)),
            "forget_classes": list(material.about.forgotten),
            "classes": list(material.task.rows().groups),
            "rows": material.split.describe(),
            **({"test_is": HELD_OUT} if material.about.may_know else {}),
            "evaluated": _evaluated(material.split.describe(), config.evaluation.most),
        },
        "scores": [_described(score, material.about.may_know) for score in (*material.task.scores, *further)],
        "model": _model(config, material, methods),
        "selection": {
            **config.selection.model_dump(mode="json"),
            "retain_rows": min(config.selection.retain_rows, len(kept)),
            "forget_rows": min(config.selection.forget_rows, len(material.split.forget)),
            "held_out_rows": held_out,
        },
        "base": base,
        "reference": reference,
        "methods": methods,
        "pool": {
            **{key: value for key, value in finished.pool.items() if key not in ("statistics_moved", "standing")},
            **({"adapter": _adapter(config)} if config.pool.adapter else {}),
            "leave_one_out": finished.leave_one_out,
            "members": [_member(m, finished.pool) for m in finished.members],
        },
        "statistics_moved": finished.pool.get("statistics_moved") or {},
        "warnings": [
            *data_warnings(material.notes),
            *_warnings(config, material.split.describe(), finished, methods, material.task.MEASURE),
        ],
        **({"said": finished.said} if finished.said else {}),
        **finished.evidence,
        "shown": finished.shown,
    }


def _described(score: Score, may_know: bool) -> dict[str, Any]:
    """Return what results say of a score: rows that the base may know are not called unseen."""
    found = score.descriptor()
    for key in ("title", "about") if may_know else ():
        found[key] = found[key].replace("unseen", "held out").replace("Unseen", "Held-out")
    return found


def _by_group(material: Material) -> dict[str, Any]:
    """Return of which parts numbers are told by group, and the groups of which nothing is kept."""
    return {
        "by_group": [*chain(*material.task.BY_GROUP[0])],
        "groups_without_retain": groups_without_retain(material.task, material.parts),
    }


def _adapter(config: RunConfig) -> dict[str, Any]:
    """Return what the members' adapters are made of; `r` is the list of ranks where the grid varies them."""
    assert config.pool.adapter is not None
    ranks = config.pool.grid.get(RANK)
    return {**config.pool.adapter.model_dump(mode="json"), **({"r": ranks} if ranks else {})}


def _evaluated(rows: dict[str, int], most: int | None) -> dict[str, int]:
    """Return how many rows of each part the numbers are of: of retain and forget rows at most `most`."""
    return {name: min(n, most or n) if name in ("retain", "forget") else n for name, n in rows.items()}


def _row(method: MethodConfig, buffers: Buffers, outcome: dict[str, Any]) -> dict[str, Any]:
    info = describe(method.name)
    found = (outcome.get("search") or {}).get("winner", {})
    merges = info.kind != "train"
    needs = list(needs_of(method.name, {**method.settings, **found}))
    if merges and isinstance(buffers, Recalibrate) and buffers.recalibrate not in needs:
        needs.append(buffers.recalibrate)
    if method.projected is not None:
        need = outcome["projection"]["needs"]
        needs += [] if need in needs else [need]
    return {
        "label": method.row,
        "method": method.name,
        "kind": info.kind,
        **({"stands_for": "reference"} if info.exact else {}),
        "needs": needs,
        "buffers": describe_buffers(buffers) if merges else None,
        "settings": {**{k: v for k, v in info.settings.items() if v is not None}, **method.settings, **found},
        **outcome,
        "seconds": sum(outcome["seconds_parts"].values()),
    }


def _gap(row: dict[str, Any], reference: dict[str, Any] | None, scores: Sequence[Score]) -> dict[str, Any]:
    names = [score.name for score in scores if score.in_gap]
    if reference is None or any(r[name] is None for r in (row, reference) for name in names):
        return {"gap": None, "gap_parts": None}
    gap = average_gap(row, reference, names)
    return {"gap": gap.total, "gap_parts": dict(gap.parts)}


def _model(config: RunConfig, material: Material, methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    merged = [row["merged_elements"] for row in methods.values() if row.get("merged_elements")]
    return {
        "family": material.about.family,
        "settings": dict(material.about.settings),
        "parameters": sum(p.numel() for p in material.task.template().parameters()),
        "merged_elements": merged[0] if merged else None,
        "buffers": describe_buffers(config.buffers),
    }


def _member(facts: dict[str, Any], pool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member: `loss` is the mean of its last epoch, `forget_loss` that of the finished model.

    `learned` says whether the latter is below the base's; how it stands to the others is as in `MemberHealth`. Where
    only its running statistics made it worse than the base, its numbers are those with the base's (see `pool_health`).
    """
    name, health = facts["name"].removeprefix("member "), pool["health"]
    own = by_weights(health[name])
    standing: dict[str, Any] = next((one for one in pool.get("standing") or () if one["member"] == facts["name"]), {})
    return {
        "name": name,
        "settings": {**facts["settings"], **({RANK: facts["rank"]} if "rank" in facts else {})},
        "loss": facts["losses"][-1],
        "forget_loss": own.get("loss"),
        "learned": name not in unlearned_members(health),
        "forget": own.get("forget"),
        "seconds": facts["seconds"],
        **{key: value for key, value in standing.items() if key != "member"},
    }


def _warnings(
    config: RunConfig, rows: Mapping[str, int], finished: Finished, methods: dict[str, Any], measure: str
) -> Warnings:
    pool, rule = finished.pool, config.selection
    names = [facts["name"].removeprefix("member ") for facts in finished.members]
    odd = [one["member"].removeprefix("member ") for one in pool.get("standing") or () if one["bad"]]
    found = diverged_warnings(pool.get("diverged") or {})
    found += pool_warnings(pool["consensus"], pool["chance"], pool["cosine"], names, pool["health"], odd, measure)
    if finished.leave_one_out:
        row = next(m.row for m in config.methods if m.name == "consensus" and m.row in methods)
        whole = methods[row]["alpha"]
        found += leave_one_out_warnings(whole, finished.leave_one_out)
    curves = {label: row for label, row in methods.items() if row.get("curve")}
    if rule.objective == "match-holdout" and curves:
        seen, trained = min(rule.forget_rows, rows["forget"]), config.base.train is not None
        base = next(iter(curves.values()))["curve"][0]
        found += unseen_warnings(
            base, seen, rows["validation"], trained_here=trained, reference=config.reference is not None
        )
    moved = pool.get("statistics_moved") or {}
    return found + row_warnings(curves, rule, finished.base, moved, blamed=bool(found), measure=measure)
