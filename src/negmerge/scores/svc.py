"""A support-vector classifier on one feature, in time linear in the rows: its RBF kernel has a low numerical rank."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RANK_TOLERANCE = 1e-13  # of the kernel's diagonal, which is 1: what is left of it when the factor ends
GAP_TOLERANCE = 1e-9  # between primal and dual, relative to the objective
STEPS = 100
TIE = 1e-9  # of the decision: below it rounding alone would decide


@dataclass(frozen=True)
class Svc:
    """A fitted machine: f(x) = Σ_j w_j φ_j(x) + b, φ(x) = L⁻¹ k(pivots, x), L Lᵀ the kernel of the pivots."""

    pivots: Array
    factor: Array
    weights: Array
    bias: float
    gamma: float
    objective: float

    def decision(self, feature: Array) -> Array:
        """Return f(x), float64 [n], of features float64 [n]."""
        kernel = np.exp(-self.gamma * (feature[None, :] - self.pivots[:, None]) ** 2)
        found: Array = self.weights @ np.linalg.solve(self.factor, kernel) + self.bias
        return found

    def is_member(self, feature: Array) -> npt.NDArray[np.bool_]:
        """Return whether f(x) ≥ 0, within rounding: what the machine cannot tell apart it calls a member."""
        found: npt.NDArray[np.bool_] = self.decision(feature) >= -TIE
        return found


def fit_svc(members: Array, others: Array, *, penalty: float = 3.0, gamma: float = 1.0) -> Svc:
    """Return the classifier that tells `members` (+1) from `others` (−1) by one feature, float64 [n] and [m].

    It minimises ½‖w‖² + C Σ max(0, 1 − y_i (w·φ(x_i) + b)) for the kernel k(x, y) = exp(−γ (x − y)²), C the `penalty`.
    The kernel's matrix is L Lᵀ up to 1e-13, L [n + m, r], by pivoted Cholesky; of features between 0 and 1 the rank r
    is about ten. So the dual is solved by an interior-point method whose steps take O((n + m) r²); then b is set to its
    exact optimum for the w found, the middle of the interval where it is one. The relative gap between primal and dual
    is at most 1e-9, unless rounding ends the search earlier.

    `Svc.objective` is the primal's value. Features must be finite and both sides have a row.

    >>> machine = fit_svc(np.full(9, 0.99), np.full(9, 0.5))
    >>> machine.is_member(np.array([0.5, 0.6, 0.98])).tolist()
    [False, False, True]

    Source: S. Fine and K. Scheinberg, Efficient SVM training using low-rank kernel representations, JMLR 2, 2001.
    """
    feature = np.concatenate([members, others]).astype(np.float64)
    sign = np.concatenate([np.ones(len(members)), -np.ones(len(others))])
    pivots, rows = _low_rank(feature, gamma)
    weights = _dual(rows * sign, sign, penalty)
    scores = weights @ rows
    # The slope of the loss in b is C times (how many y_i − w·φ_i lie below b, less how many members there are).
    turns = np.sort(sign - scores)
    bias = float(turns[len(members) - 1] + turns[len(members)]) / 2.0
    loss = np.maximum(0.0, 1.0 - sign * (scores + bias)).sum()
    return Svc(
        feature[pivots], rows[:, pivots].T, weights, bias, gamma, float(0.5 * weights @ weights + penalty * loss)
    )


def _low_rank(feature: Array, gamma: float) -> tuple[npt.NDArray[np.int64], Array]:
    """Return the pivots [r] of a Cholesky factor of the kernel's matrix, and the factor, transposed [r, n]."""
    left = np.ones(len(feature))
    pivots: list[int] = []
    rows: list[Array] = []
    while len(rows) < len(feature):
        pivot = int(left.argmax())
        if left[pivot] <= RANK_TOLERANCE:
            break
        row = np.exp(-gamma * (feature - feature[pivot]) ** 2)
        for earlier in rows:
            row -= earlier[pivot] * earlier
        row /= np.sqrt(left[pivot])
        left = np.maximum(left - row * row, 0.0)
        pivots.append(pivot)
        rows.append(row)
    return np.array(pivots), np.array(rows)


def _dual(signed: Array, sign: Array, penalty: float) -> Array:
    """Return w = Σ a_i y_i φ_i [r] at the minimum of ½‖w‖² − Σ a_i over 0 ≤ a_i ≤ C, Σ a_i y_i = 0.

    `signed` holds y_i φ_i, [r, n]. A primal-dual predictor-corrector method (Mehrotra), one Newton step after another.
    Where rounding leaves no finite step that narrows the gap, the best point so far is returned.
    """
    point = _Point(np.full(len(sign), penalty / 2.0), np.ones(len(sign)), np.ones(len(sign)), 0.0)
    best, least = signed @ point.dual, np.inf
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            weights = signed @ point.dual
            newton = _Newton(signed, sign, penalty, point, weights)
            scale = max(1.0, abs(0.5 * float(weights @ weights) - float(point.dual.sum())))
            worst = max(newton.gap / scale, float(np.abs(newton.error).max()))
            if worst < least:
                best, least = weights, worst
            if not np.isfinite(worst) or worst <= GAP_TOLERANCE or worst > 1e3 * least:
                break
            predicted = newton.step(0.0, 0.0)
            ahead = newton.moved(predicted, newton.longest(predicted))
            aim = (ahead.gap(penalty) / newton.gap) ** 3 * newton.gap / (2 * len(sign))
            corrected = newton.step(aim - predicted.dual * predicted.lower, aim + predicted.dual * predicted.upper)
            point = newton.moved(corrected, 0.995 * newton.longest(corrected))
    return best


@dataclass(frozen=True)
class _Point:
    """Dual variables a [n], the multipliers of a ≥ 0 and of a ≤ C [n] each, and that of Σ a_i y_i = 0; or a step."""

    dual: Array
    lower: Array
    upper: Array
    bias: float

    def gap(self, penalty: float) -> float:
        return float(self.dual @ self.lower + (penalty - self.dual) @ self.upper)


class _Newton:
    """The Newton system of a point: (D + ZᵀZ) Δa + y Δb = …, Z the signed features, solved by the Woodbury identity."""

    def __init__(self, signed: Array, sign: Array, penalty: float, point: _Point, weights: Array) -> None:
        self.signed, self.sign, self.point = signed, sign, point
        self.room, self.gap = penalty - point.dual, point.gap(penalty)
        self.error: Array = weights @ signed - 1.0 + point.bias * sign - point.lower + point.upper
        self.inverse: Array = 1.0 / (point.lower / point.dual + point.upper / self.room)
        self.scaled = signed * self.inverse
        # Its smallest eigenvalue is 1 at least; where it overflows, the step is not finite and the search ends.
        inner = np.eye(len(signed)) + self.scaled @ signed.T
        if not np.isfinite(inner).all():
            inner[:] = np.nan
        self.inner: Array = np.asarray(np.linalg.inv(inner), dtype=np.float64)
        self.along = self._solved(sign)

    def step(self, at_lower: Array | float, at_upper: Array | float) -> _Point:
        """Return the step to where the products with both multipliers are `at_lower` and `at_upper`."""
        point = self.point
        towards_lower, towards_upper = at_lower / point.dual - point.lower, at_upper / self.room - point.upper
        free = self._solved(towards_lower - towards_upper - self.error)
        bias = float((self.sign @ free + self.sign @ point.dual) / (self.sign @ self.along))
        dual = free - self.along * bias
        lower = towards_lower - point.lower / point.dual * dual
        return _Point(dual, lower, towards_upper + point.upper / self.room * dual, bias)

    def longest(self, step: _Point) -> float:
        """Return the longest part of a step, 1 at most, that leaves everything positive."""
        point = self.point
        moved = (
            (point.dual, step.dual), (self.room, -step.dual), (point.lower, step.lower), (point.upper, step.upper)
        )  # fmt: skip
        limits = [1.0]
        for values, change in moved:
            shrinking = change < 0
            limits += [float((-values[shrinking] / change[shrinking]).min())] if shrinking.any() else []
        return min(limits)

    def moved(self, step: _Point, part: float) -> _Point:
        """Return the point after a part of a step."""
        at = self.point
        return _Point(
            at.dual + part * step.dual,
            at.lower + part * step.lower,
            at.upper + part * step.upper,
            at.bias + part * step.bias,
        )

    def _solved(self, right: Array) -> Array:
        found: Array = self.inverse * right - (self.inner @ (self.scaled @ right)) @ self.scaled
        return found
