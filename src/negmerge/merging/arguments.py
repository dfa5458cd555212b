"""What Python callers hand over as state dicts, checked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from negmerge.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def check_state_dicts(base: Any, members: Any) -> None:
    """Raise InputError unless `base` is a state dict and `members` a list of some, none of them given twice."""
    _check_state_dict(base, "base")
    if isinstance(members, Mapping) or hasattr(members, "state_dict"):
        raise InputError(f"members is {_kind(members)}, not a list of state dicts; write [state_dict]")
    listed = _listed(members, "state dicts")
    for i, member in enumerate(listed):
        _check_state_dict(member, f"members[{i}]")
    if len({id(member) for member in listed}) < len(listed):
        raise InputError("a member is given twice; a repeated member would count double")


def _check_state_dict(value: "Mapping[str, Tensor] | Any", what: str) -> None:
    import torch

    if hasattr(value, "state_dict"):
        raise InputError(f"{what} is {_kind(value)}, not a state dict; pass its state_dict()")
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is {_kind(value)}, not a state dict; pass a dict of names and tensors")
    for name, tensor in value.items():
        if not isinstance(name, str):
            raise InputError(f"{what} has a key that is {_kind(name)}, not a name; pass model.state_dict()")
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{what}: {name:.80} is {_kind(tensor)}, not a tensor; pass model.state_dict() alone")


def _listed(members: Any, what: str) -> Sequence[Any]:
    if not isinstance(members, Sequence):
        raise InputError(f"members is {_kind(members)}, not a list of {what}; give a list")
    if not members:
        raise InputError("the pool is empty: give at least one member beside the base")
    return members


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"
