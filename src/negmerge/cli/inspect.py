"""`negmerge inspect`: what a pool looks like, before anything is merged."""

from typing import Annotated

import typer

from negmerge.cli.merge import AsJson, Base, Exclude, Include, Members, threshold_option
from negmerge.cli.printing import print_json

ROWS = 20


def inspect(
    base: Base,
    members: Members = None,
    threshold: Annotated[float, threshold_option] = 1.0,
    zeros: Annotated[str, typer.Option(help="A zero may veto or abstain.")] = "veto",
    include: Include = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Show how far the MEMBERs agree: consensus per tensor, cosines, zeros, warnings. Writes nothing."""
    from negmerge.execution.compiling import load_without_linear_algebra
    from negmerge.merging.inspecting import inspect_checkpoints

    load_without_linear_algebra()
    found = inspect_checkpoints(
        base, members or [], threshold=threshold, zeros=zeros, include=include or (), exclude=exclude or ()
    )
    facts = found.as_json()
    if as_json:
        print_json(facts)
        return
    print(found.title)
    for word, text in found.summary():
        print(f"  {word:<10} {text}")
    width = max(len(tensor["name"]) for tensor in facts["tensors"][:ROWS])
    for tensor in facts["tensors"][:ROWS]:
        print(f"  {tensor['name']:<{width}}  {tensor['elements']:>12,}  {100 * tensor['consensus']:6.2f} %")
    if len(facts["tensors"]) > ROWS:
        print(f"  … {len(facts['tensors']) - ROWS} more tensors: --json has them all")
    for warning in found.warnings:
        print(f"warning: {warning}")
