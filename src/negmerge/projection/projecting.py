"""A merged vector projected layer by layer: in files, tensor by tensor, with what it did to inputs before and after."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from negmerge.checkpoints.atomic import atomic_write
from negmerge.checkpoints.hashing import hash_file
from negmerge.checkpoints.memory import stored
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.checkpoints.writing import SafetensorsWriter
from negmerge.errors import InputError
from negmerge.projection.layers import Layer, units
from negmerge.projection.moments import PARTS, Moments
from negmerge.projection.naming import check_most, fits, found_in
from negmerge.projection.solving import EPSILON, action, project, project_tied, project_tokens

Others = Literal["leave-out", "keep"]
SAME = 0.01  # by which the norm of a weight may differ from that in the model of the moments
OTHERS: Others = "leave-out"  # what becomes of tensors without a layer; measured in docs/results/projection.md


@dataclass(frozen=True)
class LayerEffect:
    """What a layer's change did to its outputs before and after: √E‖τx‖² on forget and on retain inputs."""

    name: str
    forget_before: float
    retain_before: float
    forget_after: float
    retain_after: float
    epsilon: float = EPSILON

    def as_json(self) -> dict[str, Any]:
        """Return the numbers, with the ratio retain / forget before and after; None where forget is 0."""
        return {
            **vars(self),
            "before": _ratio(self.retain_before, self.forget_before),
            "after": _ratio(self.retain_after, self.forget_after),
        }


@dataclass
class ProjectionReport:
    """What a projection did: every layer's effect, and the merged tensors without a layer, which are `others`.

    `missing` are layers of the moments that the model lacks.
    """

    strength: float
    rows: Mapping[str, Any]
    others: Others
    order: Sequence[str]
    effects: dict[str, LayerEffect] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def layers(self) -> list[LayerEffect]:
        """The effects in the order of the model's layers."""
        return [self.effects[name] for name in self.order if name in self.effects]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "strength": self.strength,
            "rows": dict(self.rows),
            "layers": [layer.as_json() for layer in self.layers],
            "others": self.others,
            "without": sorted(self.without),
            **({"missing": list(self.missing)} if self.missing else {}),
        }


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


class Projection:
    """A moments file with a strength λ: what becomes of each layer's change in one merged vector.

    Tensors of the vector that belong to no layer (scales and shifts of normalisations, matrices whose inputs could not
    be seen) are left out of it, or kept as they are, as `others` says. Several threads may ask it; `report` is what was
    done so far. Raises InputError for a strength that is negative or not finite.
    """

    def __init__(self, moments: Moments, strength: float, others: Others = OTHERS) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise InputError(f"the strength of a projection is a number from 0, got {strength}")
        self.moments, self.strength, self.others = moments, float(strength), others
        rows = {part: moments.facts[part] for part in PARTS}
        self.report = ProjectionReport(self.strength, rows, others, [])
        self._take(moments.layers, {})

    def unit(self, name: str, merged: Iterable[str]) -> tuple[str, ...]:
        """Return the merged names that are projected together with a merged tensor, itself among them."""
        at = self._unit_of.get(name)
        if at is None:
            return (name,)
        own = {other for layer in self._units[at] for other in layer.tensors}
        return tuple(other for other in merged if other in own)

    def check(
        self,
        names: Sequence[str],
        shape: Callable[[str], tuple[int, ...]],
        where: str,
        among: Sequence[str] | None = None,
    ) -> None:
        """Take the names of a model with tensors of these names and shapes, one prefix more or less than the moments'.

        `names` are those of the vector, `among` all of the model, where these are known. Raises InputError where the
        moments are of another model, or fewer than half of their layers are among its names.
        """
        file = str(self.moments.path)
        known = names if among is None else among
        found = found_in(self.moments.layers, known, shape, where, file)
        if among is not None:
            check_most(found, among, where, file)
            merged = set(names)  # asked for membership only
            if not any(name in merged for layer in found.layers for name in layer.weight):
                raise InputError(f"{file}: none of its layers (such as {found.layers[0].name}) merges into {where}")
            self.report.missing = list(found.missing)
        there = set(known)  # asked for membership only
        for layer in found.layers:
            name = next((name for name in layer.weight if name in there), None)
            if name is not None and not fits(layer, shape(name)):
                raise InputError(
                    f"{file}: layer {name} has {layer.columns} inputs, in {where} its shape is "
                    f"{list(shape(name))}; make the moments of this model"
                )
        self._take(found.layers, found.of)

    def _take(self, layers: Sequence[Layer], of: Mapping[str, str]) -> None:
        """Go by these layers, of whose tensors `of` has the names in the moments."""
        self._of = of
        self.report.order = [layer.name for layer in layers]
        self._units = units(layers)
        self._unit_of = {name: i for i, unit in enumerate(self._units) for layer in unit for name in layer.tensors}

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of a merge says of it."""
        return {
            "moments": {"name": self.moments.path.name, "hash": hash_file(self.moments.path)},
            "strength": self.strength,
            "others": self.others,
            **{part: self.moments.facts[part] for part in PARTS},
        }

    def check_weight(self, name: str, norm: float, where: str) -> None:
        """Raise InputError where ‖W‖ of a base's weight is not what it was in the model of the moments, within 1 %."""
        expected = self.moments.facts["norms"].get(self._of.get(name, name))
        if expected is not None and abs(norm - expected) > SAME * expected:
            raise InputError(
                f"{self.moments.path} was taken from another model: {name} has a norm of {expected:.6g} there, of "
                f"{norm:.6g} in {where}; make the moments of this model"
            )

    def apply(self, changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the projected changes of one unit, by name and in the dtype given.

        A layer of which only the weight (or only the bias) is in `changes` is projected as if the other had none.
        """
        names = list(changes)
        at = self._unit_of.get(names[0])
        if at is None:
            self.report.without += names
            keep = self.others == "keep"
            return {name: value if keep else torch.zeros_like(value) for name, value in changes.items()}
        result = {name: value.clone() for name, value in changes.items()}
        for layer in self._units[at]:
            weight = next((result[name] for name in layer.weight if name in result), None)
            bias = next((result[name] for name in layer.bias if name in result), None)
            if weight is not None or bias is not None:
                self.report.effects[layer.name] = self._layer(layer, weight, bias)
        for layer in self._units[at]:  # further names of one tensor
            for own in (layer.weight, layer.bias):
                first, *more = [name for name in own if name in result] or [""]
                result |= {name: result[first].clone() for name in more}
        return result

    def _layer(self, layer: Layer, weight: Tensor | None, bias: Tensor | None) -> LayerEffect:
        """Project the change of a layer in place."""
        if layer.kind == "embedding":
            assert weight is not None
            tokens_f, tokens_r = (self.moments.of(part, layer.tokens) for part in PARTS)
            before = weight.clone()
            weight.copy_(project_tokens(weight, tokens_f, tokens_r, self.strength))
            return _effect(layer.name, [(before.T, weight.T, tokens_f, tokens_r)], EPSILON)
        forget, retain = (self.moments.of(part, layer.source) for part in PARTS)
        if layer.kind == "tied-embedding":
            assert weight is not None
            tokens_f, tokens_r = (self.moments.of(part, layer.tokens) for part in PARTS)
            own_f, own_r = (m[0, : layer.columns, : layer.columns] for m in (forget, retain))
            before = weight.clone()
            weight.copy_(project_tied(weight, own_f, own_r, tokens_f, tokens_r, self.strength))
            uses = [(before, weight, own_f, own_r), (before.T, weight.T, tokens_f, tokens_r)]
            return _effect(layer.name, uses, EPSILON)
        return self._linear(layer, weight, bias, forget, retain)

    def _linear(
        self, layer: Layer, weight: Tensor | None, bias: Tensor | None, forget: Tensor, retain: Tensor
    ) -> LayerEffect:
        inputs = slice(layer.columns if weight is None else 0, layer.columns + (bias is not None))
        forget, retain = forget[:, inputs, inputs], retain[:, inputs, inputs]
        part = None if bias is None else bias if layer.rows is None else bias[slice(*layer.rows)]
        columns = []
        if weight is not None:
            columns.append(layer.matrices(weight))
        if part is not None:
            columns.append(part.reshape(layer.groups, -1, 1))
        before = torch.cat(columns, dim=2)
        found = [project(before[g], forget[g], retain[g], self.strength) for g in range(layer.groups)]
        after = found[0].delta[None] if layer.groups == 1 else torch.stack([one.delta for one in found])
        if weight is not None:
            layer.put(weight, after[..., : layer.columns].to(weight.dtype))
        if part is not None:
            part.copy_(after[..., -1].reshape(part.shape))
        both = [(before[g], after[g], forget[g], retain[g]) for g in range(layer.groups)]
        return _effect(layer.name, both, max(one.epsilon for one in found))


def _effect(name: str, parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], epsilon: float) -> LayerEffect:
    """Return the effect of the changes (before, after) of parts with moments (forget, retain), their squares summed."""

    def total(delta: int, moments: int) -> float:
        return math.sqrt(sum(action(part[delta], part[moments]) ** 2 for part in parts))

    return LayerEffect(name, total(0, 2), total(0, 3), total(1, 2), total(1, 3), epsilon)


def project_vector(projection: Projection, vector: Path, output: Path) -> ProjectionReport:
    """Project the merged vector in a file and write τ′ as another, unit by unit; OUT is replaced, whole or not at all.

    Names, shapes and dtypes stay. Raises InputError where the moments are of another model.
    """
    source = SafetensorsFile(vector)
    try:
        projection.check(source.names, source.shape, str(vector))
        layout = [(name, source.dtype(name), source.shape(name)) for name in source.names]
        done: set[str] = set()  # asked for membership only
        with atomic_write(output) as file:
            writer = SafetensorsWriter(file, layout)
            for name in source.names:
                if name in done:
                    continue
                unit = projection.unit(name, source.names)
                changes = {own: source.read(own).reshape(source.shape(own)) for own in unit}
                for own, value in projection.apply(changes).items():
                    writer.write(own, 0, stored(value.reshape(-1)))
                done.update(unit)
    finally:
        source.close()
    return projection.report
