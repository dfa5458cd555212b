"""What the methods of a run add to its work: rows trained on, vectors to choose α for, models to judge."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negmerge.experiment.choices import describe_buffers
from negmerge.experiment.config import MethodConfig, RunConfig
from negmerge.experiment.methods import describe, own_pools, trials_of
from negmerge.selection import LASTING
from negmerge.selection.lasting import FIRST
from negmerge.training import TrainSettings
from negmerge.training.pool import Member, expand_grid
from negmerge.unlearning.method import OwnPool, Passes, method_of, passes_of
from negmerge.unlearning.search import candidates, search_ranges


@dataclass(frozen=True)
class Workload:
    """The work of all methods on one seed. Searches are made on the first seed only.

    `trained` counts rows passed through training, `passed` those that methods pass through a frozen model beside it;
    `vectors` those for which α is chosen; `judged` the candidates of searches, each a model that is kept; `members` the
    models of pools that methods train themselves. `tested` are the models that lasting looks at for what comes back, as
    many as where no α reaches Retrain; `tested_at_most` where one does.
    """

    trained: int
    vectors: int
    judged: int
    passed: int = 0
    members: int = 0
    tested: int = 0
    tested_at_most: int = 0


def vectors_tested(config: RunConfig, method: MethodConfig) -> tuple[int, int] | None:
    """Return for how many vectors of a row lasting tests what comes back, and how many α of each at most.

    Of merging rows, where that is the objective, else None: single members and trained rows are chosen by retain-floor.
    The strengths of a projection share what a row has, two for each at least.
    """
    rule = config.selection
    if rule.objective != LASTING or describe(method.name).kind != "merge":
        return None
    vectors = _strengths(method)
    return vectors, max(2, rule.candidates // vectors)


def _strengths(method: MethodConfig) -> int:
    return 1 if method.projected is None else len(method.projected.strength)


def workload(config: RunConfig, members: int, rows: Mapping[str, int], seed: int = 0) -> Workload:
    """Return the work of the config's methods with a pool of `members`, on the seed at place `seed` of the config.

    Single members are counted once for all methods that try them with the same buffers; of a search on another seed,
    its longest candidate.
    """
    trained = passed = vectors = judged = tested = most = 0
    methods = [method for method in config.methods if method.seeds is None or seed < method.seeds]
    trying = [config.buffers_of(method) for method in methods if describe(method.name).each_member]
    vectors += members * len({describe_buffers(buffers) for buffers in trying})
    together: dict[str, int] = {}  # rows passed through training once for several rows of the table
    pools: dict[str, int] = {}  # members of pools that rows of the table share
    for method in methods:
        kind = describe(method.name).kind
        if kind != "train":
            vectors += trials_of(method.name, members) * _strengths(method)
            found_tested = vectors_tested(config, method)
            if found_tested is not None:
                tested += found_tested[0] * min(FIRST, found_tested[1])
                most += found_tested[0] * found_tested[1]
        for place, pool in enumerate(own_pools(method.name, method.settings)):
            key = json.dumps([pool.start, pool.part, pool.grid] if pool.start else [method.row, place])
            runs = _members(config, pool)
            passes = sum(one.settings.count_rows(min(rows[pool.part], rows["forget"])) for one in runs)
            together[key], pools[key] = round(pool.share * passes), len(runs)
        if kind == "merge":
            continue
        found = method_of(method.name)
        each = [_passes(config, method.name, one, rows) for one in candidates(found, method.settings)]
        searched = seed == 0 and bool(search_ranges(found, method.settings))
        counted = each if searched else [max(each)]
        trained += sum(one.trained for one in counted)
        passed += sum(one.evaluated for one in counted)
        together[json.dumps([method.name, method.settings], default=str)] = max(one.shared for one in each)
        judged += len(each) if searched else 0
    trained += sum(together.values())
    return Workload(trained, vectors, judged, passed, sum(pools.values()), tested, most)


def _members(config: RunConfig, pool: OwnPool) -> list[Member]:
    """Return the members of a pool of a method's own."""
    return expand_grid(config.pool.train, config.pool.grid if pool.grid is None else pool.grid)[: pool.members]


def _passes(config: RunConfig, name: str, given: Mapping[str, Any], rows: Mapping[str, int]) -> Passes:
    """Return the rows that one training of a method passes through the model; none of one that a run has anyway."""
    info, method = describe(name), method_of(name)
    settings: Any = method.Settings(**given)
    if not info.scratch:
        return passes_of(method, settings, rows)
    own = settings.train or config.scratch_settings()
    reference = config.reference and config.reference.train
    shared = info.exact and own == (config.base.train if reference == "base" else reference)
    return Passes(0 if shared or not isinstance(own, TrainSettings) else own.epochs * rows["retain"])
