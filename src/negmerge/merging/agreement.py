"""How the members of a pool agree, as sums of products over all elements or over a sample of them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# Products of elements beyond 1e19 leave the range of numbers: what is made of such sums is inf or NaN, and no warning.
beyond_range = np.errstate(invalid="ignore", divide="ignore", over="ignore")


@dataclass(frozen=True)
class Agreement:
    """Sums over elements of a pool of N members; row 0 of `products` is θ₀, row i the task vector of member i.

    products: float64 [2, 1 + N, 1 + N], Σ of the products of any two rows, its lower half, first over the elements of
    matrices (tensors of two dimensions or more), then of vectors; counts: int64 [2 + N], the elements looked at, those
    on whose sign all members agree, and the zeros of each task vector.

    What compares weights with the base's is of matrices alone, where there are any: scales of normalisations begin at 1
    in every model, and two networks that have nothing else in common are alike in them. A cosine or a size is NaN where
    the sums that it is made of leave the range of numbers.
    """

    products: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]

    @staticmethod
    def of(members: int) -> "Agreement":
        """Return the sums over no element."""
        return Agreement(np.zeros((2, 1 + members, 1 + members)), np.zeros(2 + members, np.int64))

    @beyond_range
    def add(self, products: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> None:
        """Add the sums over further elements, in place."""
        np.add(self.products, products, out=self.products)
        np.add(self.counts, counts, out=self.counts)

    @property
    def elements(self) -> int:
        """How many elements were looked at."""
        return int(self.counts[0])

    @property
    def unanimous(self) -> float:
        """The share of the elements on whose sign all members agree."""
        return float(self.counts[1]) / max(1, self.elements)

    @property
    def zero_share(self) -> float:
        """The share of all task vectors' elements that are exactly 0."""
        return float(self.counts[2:].sum()) / max(1, self.elements * (len(self.counts) - 2))

    @beyond_range
    def cosine(self) -> tuple[tuple[float, ...], ...]:
        """Return the cosine of any two task vectors, N × N; NaN where one of them is 0."""
        full = self.products.sum(0)[1:, 1:]
        full = np.tril(full) + np.tril(full, -1).T
        norms = np.sqrt(full.diagonal())
        found = np.clip(full / np.outer(norms, norms), -1.0, 1.0)
        return tuple(tuple(float(value) for value in row) for row in found)

    @beyond_range
    def to_base(self) -> tuple[float, ...]:
        """Return the cosine of each member's weights θ₀ + τ with the base's θ₀; 1 where both are 0."""
        base, along, own = self._beside_base()
        sizes = np.sqrt(base) * np.sqrt(np.maximum(0.0, base + 2 * along + own))
        return tuple(float((base + a) / size) if size else 1.0 for a, size in zip(along, sizes, strict=True))

    @beyond_range
    def away_from_base(self) -> tuple[float, ...]:
        """Return the cosine of each task vector with θ₀; 0 where one of them is 0."""
        base, along, own = self._beside_base()
        return tuple(float(a / size) if size else 0.0 for a, size in zip(along, np.sqrt(base * own), strict=True))

    @beyond_range
    def own_size(self) -> tuple[float, ...]:
        """Return ‖θᵢ‖ / ‖θ₀‖ of each member; 1 where the base is 0."""
        base, along, own = self._beside_base()
        squares = np.maximum(0.0, base + 2 * along + own)
        return tuple(math.sqrt(value / base) if base else 1.0 for value in squares)

    @beyond_range
    def relative_size(self) -> tuple[float, ...]:
        """Return ‖τᵢ‖ / ‖θ₀‖ of each member; 0 where the base is 0."""
        base, _, own = self._beside_base()
        return tuple(float(math.sqrt(value / base)) if base else 0.0 for value in own)

    def _beside_base(self) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return ‖θ₀‖² and, for each member, θ₀·τᵢ and ‖τᵢ‖², of matrices, or of all tensors where these are none."""
        sums = self.products[0] if self.products[0, 0, 0] > 0 else self.products.sum(0)
        return float(sums[0, 0]), sums[1:, 0], sums.diagonal()[1:]


@dataclass(frozen=True)
class Effect:
    """What a merge changed in OUT, beside α = 0.

    `changed` of `elements` differ in OUT; squares are summed in float64: of the step that was computed (Σ ±α·τ), of
    the base's weights, and of what rounding to the dtype of OUT put beside θ₀ ∓ α·τ. `octaves_squared` is
    Σ 4^⌊log₂|θ₀|⌋ over the elements that have a step, where OUT is of a half type. Only merged tensors count.
    """

    elements: int
    changed: int
    step_squared: float
    base_squared: float
    error_squared: float
    octaves_squared: float = 0.0

    @staticmethod
    def of(elements: int, sums: np.ndarray[Any, Any]) -> "Effect":
        """Return the effect on so many elements, of the sums that applying.effect_of describes."""
        changed, *squares = map(float, sums)
        return Effect(elements, int(changed), *squares)

    @property
    def changed_share(self) -> float:
        """The share of the merged elements that differ in OUT."""
        return self.changed / max(1, self.elements)

    @property
    def rounding(self) -> float:
        """The error of the cast relative to the step, √(Σ error² / Σ step²); 0 where there is no step."""
        return math.sqrt(self.error_squared / self.step_squared) if self.step_squared else 0.0

    @property
    def relative_step(self) -> float:
        """‖α·τ‖ / ‖θ₀‖ over the merged tensors; 0 where the base is 0."""
        return math.sqrt(self.step_squared / self.base_squared) if self.base_squared else 0.0

    def summary(self) -> list[tuple[str, str]]:
        """Return how much changed in OUT, and how large the step is, each with a word for it."""
        cast = f"; relative error of the cast {self.rounding:.2g}" if self.rounding else ""
        return [
            ("changed", f"{self.changed:,} elements in OUT ({100 * self.changed_share:.2f} %){cast}"),
            ("step", f"‖α·τ‖/‖θ₀‖ = {self.relative_step:.2g}"),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the effect as `negmerge merge --json` prints it."""
        return {
            "changed": self.changed,
            "changed_share": self.changed_share,
            "rounding_error": self.rounding,
            "step_over_base": self.relative_step,
        }
