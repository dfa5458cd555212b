"""A tie of the base that a member breaks: OUT holds both tensors and says so, or the merge is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.adapter import BoundAdapter
from negmerge.merging.pool.tied_names import is_head, ties_words, untying_changes, why_not_untied
from negmerge.merging.pool.ties import are_equal


@dataclass
class Untied:
    """The names of each tied tensor, apart where a member broke the tie, and what OUT or the caller is told of it."""

    parts: list[list[str]] = field(default_factory=list)
    config_changes: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def untie(group: Sequence[str], members: Sequence[Checkpoint], config: Mapping[str, Any] | None) -> Untied:
    """Return what becomes of the names of one tensor.

    A head that differs from its embedding in some member stands by itself, where the config of OUT can say that they
    are not tied; so it is when transformers loads such a member, and when PEFT merges an adapter that holds one of the
    two. Embeddings that differ from each other are a problem: transformers ties them whatever the config says.
    """
    result = Untied([list(group)])
    for member in members if len(group) > 1 else ():
        apart = _apart(member, group)
        if apart is not None:
            _break(result, member, apart, config)
    return result


def _apart(member: Checkpoint, group: Sequence[str]) -> list[str] | None:
    """Return the names whose tensors differ from the first one in a member, that one in front; None where none does."""
    has = frozenset(member.names)
    present = sorted((name for name in group if name in has), key=is_head)  # embeddings first
    differing = [name for name in present[1:] if not are_equal(member, present[0], name)]
    return [present[0], *differing] if differing else None


def _break(result: Untied, member: Checkpoint, apart: Sequence[str], config: Mapping[str, Any] | None) -> None:
    first, *others = apart
    names = f"{' and '.join(others)} differ{'s' if len(others) == 1 else ''} from {first}"
    inputs = [name for name in others if not is_head(name)]
    reason = why_not_untied(config)
    if inputs:
        reason = "transformers ties embeddings whatever its config says" if config else reason
    elif config is not None and not ties_words(config):
        reason = None
    if reason is not None:
        result.problems.append(f"{member.path}: {names}, in the base they are one tensor; {reason}")
        return
    heads = [name for name in others if [name] not in result.parts]
    if heads:
        rest = [name for name in result.parts[0] if name not in heads]
        result.parts = [rest, *result.parts[1:], *([name] for name in heads)]
    if config is not None and ties_words(config):
        result.config_changes = untying_changes(config)
    how = "changes one of them alone" if isinstance(member, BoundAdapter) else "holds different tensors"
    result.notes.append(
        f"{member.path} unties {' and '.join(others)} from {first} ({how}): OUT has a tensor of each, "
        "to be loaded with tie_word_embeddings: false"
    )
