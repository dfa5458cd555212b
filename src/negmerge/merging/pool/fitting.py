"""Members held against their base: all that merges must fit, everything else passes through from the base."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.adapter import Adapter, BoundAdapter
from negmerge.checkpoints.alias import Aliased
from negmerge.checkpoints.diagnosis import diagnose, refuse_part
from negmerge.checkpoints.wrappers import renamed
from negmerge.errors import InputError, listing
from negmerge.merging.buffers import Policy
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.selecting import Patterns
from negmerge.merging.pool.tied_names import read_config, ties_words, twin_bias
from negmerge.merging.pool.ties import are_equal, equal_twin, groups, implied_heads, ties_by_name, ties_by_value
from negmerge.merging.pool.untying import Untied, untie

MOST_NAMED = 4  # names in a proposed pattern
Config = Mapping[str, Any] | None


@dataclass(frozen=True)
class Trained:
    """The opened models of one term: its members, and the model that they were trained from, if not the base."""

    members: Sequence[Checkpoint | Adapter]
    origin: Checkpoint | None = None


def fit_pool(
    base: Checkpoint,
    members: Sequence[Checkpoint | Adapter],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffers: Policy = "keep",
) -> Pool:
    """Return the pool of one term on the base itself: see `fit_pools`."""
    return fit_pools(base, [Trained(members)], include, exclude, buffers)[1][0]


def fit_pools(
    base: Checkpoint,
    terms: Sequence[Trained],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffers: Policy = "keep",
) -> tuple[Checkpoint, list[Pool]]:
    """Return the base and the pool of each term, once every member and origin has each tensor that merges.

    A tensor merges under one set of names in all terms; it must be of floats and in the base's shape everywhere.
    Members whose names differ from the base's only by wrappers are seen under the base's names.
    Which tensors merge is decided first, by `can_merge` and the patterns; of all others nothing is asked. A name that
    a member has more is dropped if it is tied to one that the base has; one that it has less stands for the tensor
    that it is tied to. A tie that all members keep is one tensor, which a pattern finds by any of its names; one that a
    member breaks is undone where OUT can say so. Of a pool of adapters only the tensors that one of them touches merge.

    Raises InputError that lists every missing, extra, misshapen and untied tensor, for a pattern that is found in no
    name, and where nothing is left to merge.
    """
    if not terms or not all(term.members for term in terms):
        raise InputError("the pool is empty: give at least one member beside the base")
    refuse_part(base)
    given = {id(model): model for term in terms for model in (*_origin(term), *term.members)}
    seen = {key: m if isinstance(m, Adapter) else renamed(base, m) for key, m in given.items()}
    models = list(seen.values())
    patterns = Patterns(include, exclude, buffers)
    patterns.check(lambda: (name for checkpoint in (base, *models) for name in checkpoint.names))
    config = read_config(base)
    whole, heads = _with_all_names(base, models, patterns, config)
    wanted = _by_group(whole, heads, patterns)
    bound = _bound(terms, seen, whole, wanted)
    mergeable = _mergeable(whole, [bound[id(member)] for term in terms for member in term.members], patterns)
    named = [g for g in groups(whole.names, whole.tied).values() if wanted(g[0]) and not mergeable.isdisjoint(g)]
    untied = [untie(group, list(bound.values()), config) for group in named]
    broken = {head: own for head, own in heads.items() if any([head] in found.parts for found in untied)}
    full = Aliased(base, broken, whole.tied) if broken else base
    merged, copies = _merged(untied, mergeable, patterns, full.names)
    fitted = _fitted(full, bound, merged, heads, whole.tied, patterns, config, untied)
    pools = []
    for i, term in enumerate(terms):
        members = tuple(fitted[id(member)] for member in term.members)
        own = _merged_in_term(merged, copies, members) if len(terms) > 1 else merged
        pool = Pool(
            full if term.origin is None else fitted[id(term.origin)],
            members,
            tuple(own),
            tuple(range(len(members))),
            tied=copies if own is merged else {name: first for name, first in copies.items() if first in set(own)},
            implied={head: own for head, own in heads.items() if head not in broken},
            config_changes=next((found.config_changes for found in untied if found.config_changes), {}),
            partial=_partial(own, members),
            notes=() if i else tuple(note for found in untied for note in found.notes),
            start="the base" if term.origin is None else "its origin",
        )
        pools.append(pool)
    return full, pools


def fit_weights(weights: Checkpoint, pool: Pool) -> Checkpoint:
    """Return a file of weights under the names of a pool: without wrappers, tied names standing for each other."""
    return _under_tied_names(renamed(pool.base, weights), pool.merged, pool.tied)


def _origin(term: Trained) -> list[Checkpoint]:
    return [] if term.origin is None else [term.origin]


def _bound(
    terms: Sequence[Trained],
    seen: Mapping[int, Checkpoint | Adapter],
    whole: Checkpoint,
    wanted: Callable[[str], bool],
) -> dict[int, Checkpoint]:
    """Return all models, every adapter bound to the model that it was trained from."""
    found: dict[int, Checkpoint] = {}
    for term in terms:
        start = whole
        for origin in _origin(term):
            own = seen[id(origin)]
            assert not isinstance(own, Adapter)
            found[id(origin)] = own
            start = _under_tied_names(own, whole.names, whole.tied)
        for member in term.members:
            model = seen[id(member)]
            found[id(member)] = model.bind(start, wanted) if isinstance(model, Adapter) else model
    return found


def _merged_in_term(merged: Sequence[str], copies: Mapping[str, str], members: Sequence[Checkpoint]) -> Sequence[str]:
    """Return the names that merge in one term of several: of adapters those that one of them touches.

    Raises InputError where there are none.
    """
    adapters = [member for member in members if isinstance(member, BoundAdapter)]
    if len(adapters) < len(members):
        return merged
    touched = frozenset(copies.get(name, name) for adapter in adapters for name in adapter.touched)
    own = [name for name in merged if name in touched]
    if not own:
        raise InputError(f"of what {adapters[0].path} changes no tensor is left to merge; widen include")
    return own


def _with_all_names(
    base: Checkpoint, members: Sequence[Checkpoint | Adapter], patterns: Patterns, config: Config
) -> tuple[Aliased, dict[str, str]]:
    """Return the base with all its ties and the heads that it implies, and these heads, each with its embedding."""
    full = [member for member in members if not isinstance(member, Adapter)]
    tied = ties_by_value(base, full, ties_by_name(base, config))
    implied = implied_heads(base, tied, members, config, patterns.wanted)
    heads = {head: own for head, own in implied.items() if patterns.wanted(head)}
    return Aliased(base, heads, tied), heads


def _by_group(whole: Checkpoint, heads: Collection[str], patterns: Patterns) -> Callable[[str], bool]:
    """Return whether a name is wanted: tied names are one tensor, whose names in the base all count."""
    real = groups([name for name in whole.names if name not in heads], whole.tied)
    answers = {root: patterns.wanted(*names) for root, names in real.items()}

    def wanted(name: str) -> bool:
        root = whole.tied.get(name, name)
        return answers[root] if root in answers else patterns.wanted(name)

    return wanted


def _mergeable(whole: Checkpoint, members: Sequence[Checkpoint], patterns: Patterns) -> frozenset[str]:
    """Return the names that can merge; of a pool of adapters those that one of them touches."""
    found = frozenset(name for name in whole.names if patterns.can_merge(whole, name))
    adapters = [member for member in members if isinstance(member, BoundAdapter)]
    if len(adapters) < len(members):
        return found
    return found & frozenset[str]().union(*(adapter.touched for adapter in adapters))


def _merged(
    untied: Sequence[Untied], mergeable: frozenset[str], patterns: Patterns, names: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the names that merge, in the order of the base, and the further names of each, mapped to it."""
    place = {name: i for i, name in enumerate(names)}
    merged: list[str] = []
    copies: dict[str, str] = {}
    for found in untied:
        for part in found.parts:
            own = sorted((name for name in part if name in place), key=place.__getitem__)
            apart = len(found.parts) > 1  # then each part is asked for by itself
            if own and not mergeable.isdisjoint(part) and (not apart or patterns.wanted(*own)):
                merged.append(own[0])
                copies.update(dict.fromkeys(own[1:], own[0]))
    if not merged:
        raise InputError("no tensor is left to merge; widen include or narrow exclude")
    return sorted(merged, key=place.__getitem__), copies


def _fitted(
    base: Checkpoint,
    models: Mapping[int, Checkpoint],
    merged: Sequence[str],
    heads: Collection[str],
    tied: Mapping[str, str],
    patterns: Patterns,
    config: Config,
    untied: Sequence[Untied],
) -> dict[int, Checkpoint]:
    """Return all models under the base's names. Raises InputError that lists what does not fit."""
    problems = [(found.parts[0][0], line) for found in untied for line in found.problems]
    known = frozenset(base.names) | frozenset(heads)
    shapes = {name: base.shape(name) for name in merged}
    fitted = {}
    for key, member in models.items():
        if isinstance(member, BoundAdapter):
            _check_touches(member, merged, tied)
        else:
            problems += _extra(member, known, patterns, config)
            member = _under_tied_names(member, merged, tied)
            problems += _misfits(base, member, shapes)
        fitted[key] = member
    if problems:
        if line := next(
            filter(None, (diagnose(base, m) for m in models.values() if not isinstance(m, BoundAdapter))), None
        ):
            raise InputError(line)
        headline = f"{len(problems)} tensors do not fit the base {base.path}{_advice([name for name, _ in problems])}:"
        raise InputError(listing(headline, [line for _, line in problems]))
    return fitted


def _check_touches(adapter: BoundAdapter, merged: Sequence[str], tied: Mapping[str, str]) -> None:
    """Raise InputError for an adapter that changes none of what merges."""
    if adapter.touched.isdisjoint(merged) and adapter.touched.isdisjoint(name for name in tied if tied[name] in merged):
        raise InputError(
            f"{adapter.path} is an adapter of other tensors than those that merge; widen include, or leave it out"
        )


def _extra(member: Checkpoint, known: Collection[str], patterns: Patterns, config: Config) -> list[tuple[str, str]]:
    """Return a name and a line for each tensor that would merge, but is neither in the base nor tied to one there."""
    found = []
    for name in member.names:
        if name in known or not patterns.can_merge(member, name) or not patterns.wanted(name):
            continue
        bias = twin_bias(name) if config is not None and ties_words(config) else None
        twins = bias in known and bias in member.names and are_equal(member, name, str(bias))
        if not twins and equal_twin(member, name, known) is None:
            found.append((name, f"{member.path}: {name} is not in the base"))
    return found


def _under_tied_names(member: Checkpoint, merged: Sequence[str], tied: Mapping[str, str]) -> Checkpoint:
    """Give a member the merged names that it lacks because it stores tied weights once, under another name."""
    has = frozenset(member.names)
    lacking = [name for name in merged if name not in has]
    if not lacking:
        return member
    present = groups([name for name in member.names if name in tied or name in tied.values()], tied)
    alias = {name: same[0] for name in lacking if (same := present.get(tied.get(name, name)))}
    return Aliased(member, alias) if alias else member


def _misfits(base: Checkpoint, member: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    """Return a name and a line for each merged tensor that a member lacks, or has in another shape or kind."""
    has = frozenset(member.names)
    found = []
    for name, shape in shapes.items():
        if name not in has:
            found.append((name, f"{member.path}: {name} is missing"))
        elif member.shape(name) != shape:
            own = list(member.shape(name))
            found.append((name, f"{member.path}: {name} has shape {own}, in the base {list(shape)}"))
        elif not member.dtype(name).is_floating_point:
            found.append((name, f"{member.path}: {name} is {member.dtype(name)}, in the base {base.dtype(name)}"))
    return found


def _partial(merged: Sequence[str], members: Sequence[Checkpoint]) -> dict[str, int]:
    """Return the merged names that some adapter cannot change, each with the number of members that can."""
    adapters = [member for member in members if isinstance(member, BoundAdapter)]
    others = len(members) - len(adapters)
    counts = {name: others + sum(name in adapter.touched for adapter in adapters) for name in merged}
    return {name: count for name, count in counts.items() if count < len(members)}


def _advice(names: Iterable[str]) -> str:
    """Return which --exclude lets the tensors pass, written for all layers at once; '' where that would be long."""
    literal = (re.escape(name).replace(r"\-", "-") for name in dict.fromkeys(names))
    patterns = list(dict.fromkeys(re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", text) for text in literal))
    if len(patterns) > MOST_NAMED:
        return "; --exclude REGEX leaves tensors out, which then pass through from the base"
    joined = patterns[0] if len(patterns) == 1 else f"({'|'.join(patterns)})"
    return f"; --exclude '^{joined}$' leaves them out, so that the base's pass through"
