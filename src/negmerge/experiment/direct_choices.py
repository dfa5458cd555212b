"""What a run without a config chooses by its pool and its objective: the merge, and what it says of these."""

from collections.abc import Sequence
from typing import Any

from negmerge.experiment.config import Config, apply_change, check_config
from negmerge.experiment.direct import Request
from negmerge.experiment.direct_language import TASK
from negmerge.experiment.methods import AUTO, LIKE_UNSEEN, chosen_method, describe
from negmerge.experiment.user_defaults import LEAST

WHICH = (
    "data.forget",
    "data.retain",
    "data.path",
    "data.splits",
    "data.train_files",
)  # keys that say which rows go and stay


def checked_request(request: Request, changes: Sequence[str] = ()) -> Config:
    """Return the config of a request with changes KEY=VALUE, checked; "auto" chooses the merge by what it then says.

    What was chosen stands in `request.assumed`. Raises InputError as `Request.config` does, and for what is wrong with
    the changes.
    """
    raw = request.config()
    methods = raw["methods"]
    for change in changes:
        apply_change(raw, change)
    config = check_config(raw, "unlearn")
    if any(_key(change) == "data" or _key(change).startswith(WHICH) for change in changes):
        request.scattered = 0
    if _takes_anew(request, config, changes):
        raw["pool"]["train"].pop("freeze_statistics")
        raw["buffers"] = {"recalibrate": "forget"}
        config = check_config(raw, "unlearn")
        request.assumed.append(
            "running statistics are estimated again on the images to forget, which are of kinds that are kept"
        )
    elif request.statistics and all(member.settings.freeze_statistics for member in config.pool.members()):
        request.assumed.append("running statistics stay as they are: those of the rows to forget are no others'")
    if request.method != AUTO or raw["methods"] is not methods:  # it was named, by an option or by a change
        return config
    like, members = request.scattered > 0 or config.selection.objective in LIKE_UNSEEN, len(config.pool.members())
    method = chosen_method(AUTO, like, members)
    kind = f"{members} members and rows of kinds that are kept" if like else "rows that are to be known no more"
    request.assumed.append(f"merge: {method}, for {kind} (--method NAME asks for another)")
    return check_config({**raw, "methods": [method]}, "unlearn")


def _takes_anew(request: Request, config: Config, changes: Sequence[str]) -> bool:
    """Return whether running statistics are estimated again on the forget rows, where nothing else was asked for."""
    own = any(_key(change).startswith(("buffers", "pool.train.freeze", "pool.adapter")) for change in changes)
    own = own or any(_key(change) in ("pool", "pool.train") for change in changes)
    merging = any(describe(method.name).kind != "train" for method in config.methods)
    return request.statistics and request.scattered >= LEAST and config.pool.adapter is None and merging and not own


def _key(change: str) -> str:
    return change.partition("=")[0].strip()


def describe_choices(config: Config) -> list[str]:
    """Return what a config says of the pool and of α, a line each."""
    pool, rule = config.pool, config.selection
    grid = "; ".join(f"{key} {', '.join(_short(value) for value in values)}" for key, values in pool.grid.items())
    members = len(pool.members())
    lines = [f"pool: {members} member{'' if members == 1 else 's'}, {grid}"]
    if config.projection is not None and config.projection != "none":
        lines.append(
            "projection: what the merge would do to rows that are kept is taken out of it; the better of the two "
            "models is handed over (--set projection=none leaves it out)"
        )
    if rule.objective == "retain-floor":
        kept = f"{100 * rule.floor_share:g} % of how well the others are known"
        far = f", to {rule.gone:g} % at most," if rule.gone else ""
        lines.append(f"α: the deepest forgetting{far} that keeps {kept}; --set selection.floor=SHARE asks for another")
    if config.task == TASK and not config.evaluation.answers:
        lines.append(
            "page: it repeats no question and no answer; --set evaluation.answers=5 shows what the models say to some"
        )
    return lines


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
