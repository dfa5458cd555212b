"""Forgetting one source and keeping another: both written side by side, each with its own settings."""

from collections.abc import Collection, Mapping
from typing import Any

from negmerge.requests.rules import RetainRule


def side_by_side(data: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the `data` part of a config with its retain source in the place of `source`.

    `{forget: {source: mnist}, retain: {source: cifar10}, image_size: 32}` becomes `{source: cifar10, image_size: 32,
    forget: {source: mnist, image_size: 32}}`: keys that are not `known` to the data part itself are settings of both
    sources, unless a source has its own. Any other form is returned as it is.

    Raises ValueError where the retain source is given twice, or no source to forget.

    >>> data = {"forget": {"source": "mnist"}, "retain": {"source": "cifar10", "path": "x"}}
    >>> side_by_side(data, {"forget", "retain"})
    {'source': 'cifar10', 'path': 'x', 'forget': {'source': 'mnist'}}
    """
    retain, forget = data.get("retain"), data.get("forget")
    if not isinstance(retain, Mapping) or "source" not in retain:
        return dict(data)
    if data.get("source") is not None:
        raise ValueError("source is what is retained: give it there or as retain.source, not twice")
    if not isinstance(forget, Mapping) or forget.get("source") is None:
        raise ValueError("retain.source goes with forget.source; for one source write source: NAME")
    shared = {key: value for key, value in data.items() if key not in known}
    rule = {key: value for key, value in retain.items() if key in RetainRule.model_fields}
    own = {key: value for key, value in retain.items() if key not in RetainRule.model_fields}
    rest = {key: value for key, value in data.items() if key in known and key not in ("retain", "forget", "source")}
    both = {**rest, **shared, **own, "forget": {**shared, **forget}}
    return {**both, "retain": rule} if rule else both
