"""Whether OUT holds the change that a merge computed: the error of its dtype, and what would be exact enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from negmerge.checkpoints.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from negmerge.merging.agreement import Effect

if TYPE_CHECKING:
    from negmerge.merging.tally import TensorCount
    from negmerge.merging.term import Term

MOSTLY_LOST = 0.5  # relative error of the written change
HELD = 0.1  # relative error that is called exact enough
FRACTION = {BFLOAT16: 7, FLOAT16: 10, FLOAT32: 23}  # bits
LARGEST_HALF = 65504.0


def effect_warnings(
    terms: Sequence[Term], counts: Sequence[Sequence[TensorCount]], effect: Effect | None, dtypes: Sequence[DType]
) -> list[str]:
    """Return a warning of a merge that changes nothing, or whose change the dtypes of OUT mostly do not hold.

    `dtypes` are those of the merged tensors in OUT; without an effect only what was kept is judged.
    """
    if not any(count.kept for term in counts for count in term):
        return [f"nothing-kept: no element is kept, so OUT equals the base; {_advice_for_more(terms)}"]
    if effect is None:
        return []
    if all(term.alpha == 0 for term in terms):
        return ["nothing-changed: α = 0, so OUT equals the base; give another --alpha"]
    halves = [dtype for dtype in (BFLOAT16, FLOAT16) if dtype in dtypes]
    coarsest = halves[0] if halves else FLOAT32
    lost = effect.rounding
    if halves:  # the rounding of elements without a step, which a cast to another dtype makes, is no loss of the change
        lost = min(lost, relative_error(effect, coarsest))
    if lost <= MOSTLY_LOST:
        return []
    return [
        f"below-resolution: {coarsest} does not hold most of this change: {100 * effect.changed_share:.1f} % of the "
        f"merged elements differ in OUT, relative error of the cast {effect.rounding:.2f}, "
        f"‖α·τ‖/‖θ₀‖ = {effect.relative_step:.1g}; {_advice_for_dtype(terms, effect, coarsest)}"
    ]


def relative_error(effect: Effect, dtype: DType) -> float:
    """Return the relative error that a cast to `dtype` makes in a change whose steps are large against its spacing.

        √( Σ spacing(θ)² / 12 / Σ step² ),  spacing(θ) = 2^(⌊log₂|θ|⌋ − bits of the fraction)

    The sum is over the elements that have a step; errors are spread evenly over one spacing. Subnormals are left out.
    0 without a step.
    """
    if not effect.step_squared:
        return 0.0
    return 2.0 ** -FRACTION[dtype] * math.sqrt(effect.octaves_squared / 12 / effect.step_squared)


def _advice_for_dtype(terms: Sequence[Term], effect: Effect, coarsest: DType) -> str:
    if coarsest == FLOAT32:
        return "train the members further"
    finer = [FLOAT16, FLOAT32] if coarsest == BFLOAT16 and _fits_half(effect) else [FLOAT32]
    dtype = next((d for d in finer if relative_error(effect, d) <= HELD), FLOAT32)
    advice = f"--dtype {dtype} holds it within {100 * HELD:g} %"
    if len(terms) > 1:
        return advice
    alpha = terms[0].alpha * relative_error(effect, coarsest) / HELD
    return f"{advice}, as {coarsest} would from --alpha {rounded_up(alpha):g} on"


def _fits_half(effect: Effect) -> bool:
    """Whether no weight can be beyond the range of float16, by the sum of their squares."""
    return math.sqrt(effect.base_squared) + math.sqrt(effect.step_squared) < LARGEST_HALF


def rounded_up(number: float) -> float:
    """Return a number rounded to two digits, away from 0.

    >>> rounded_up(0.0123), rounded_up(31.2)
    (0.013, 32.0)
    """
    if not number or not math.isfinite(number):
        return number
    unit = 10.0 ** (math.floor(math.log10(abs(number))) - 1)
    return math.copysign(float(f"{math.ceil(abs(number) / unit - 1e-9) * unit:.2g}"), number)


def _advice_for_more(terms: Sequence[Term]) -> str:
    known = {name for term in terms for name in term.merger.method.settings.model_fields}
    if "threshold" in known:
        return "lower --threshold, so that fewer members must agree"
    if "density" in known:
        return "raise density"
    return "look at the members with `negmerge inspect`"
