"""Merging by a recipe, its terms projected where it says so: what it names is checked, opened and merged."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from negmerge.merging.output.reports import MergeReport, OnEvent
from negmerge.merging.recipe import check_recipe, read_recipe
from negmerge.merging.writing import MergeRequest, TermRequest, write_merge
from negmerge.projection.moments import Moments
from negmerge.projection.projecting import Projection


def merge_recipe(
    recipe: Path | str | Mapping[str, Any],
    output: Path | str,
    *,
    device: str = "cpu",
    workers: int | None = None,
    hash_inputs: bool = True,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> MergeReport:
    """Merge by a recipe, a YAML file or a mapping, and write the sum of its terms to OUT in one streamed pass.

        θ = base + Σ sign·α · w ⊙ method(members − origin)

    Terms are added in their order, in float32 (float64 for float64 weights), and the sum is cast once. A checkpoint
    that several terms use is opened and hashed once. The recipe is kept: as recipe.yaml in a folder, as
    NAME.recipe.yaml beside an OUT of one file; merging by it again makes the same bytes. A configuration of mergekit is
    read where it means such a sum. Paths are relative to the current folder. `project`, of a term or of the recipe,
    strips vectors of what acts on retain rows, by a file of moments.

    Raises InputError, with nothing written and a line for each mistake, for whatever is wrong with recipe, inputs or
    OUT.
    """
    content, where = (recipe, "recipe") if isinstance(recipe, Mapping) else read_recipe(Path(recipe))
    request = check_recipe(
        content,
        where,
        output=output,
        device=device,
        workers=workers,
        hash_inputs=hash_inputs,
        overwrite=overwrite,
    )
    with ExitStack() as stack:
        request["terms"] = [_projected(term, stack) for term in request["terms"]]
        return write_merge(MergeRequest(**request, on_event=on_event))


def _projected(term: TermRequest, stack: ExitStack) -> TermRequest:
    """Return a term with its projection open for as long as the stack is."""
    if term.project is None:
        return term
    moments = stack.enter_context(Moments(term.project.moments))
    return replace(term, change=Projection(moments, term.project.strength))
