"""`negmerge exact`: a service that learns from clients and forgets any of them exactly."""

from pathlib import Path
from typing import Annotated, Any

import typer

from negmerge.cli.printing import print_json

exact = typer.Typer(help="Learn from groups of rows so that each can be forgotten exactly (SIFT-Masks).")
Directory = Annotated[Path, typer.Argument(help="The directory of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@exact.command()
def learn(
    config: Annotated[Path, typer.Argument(help="A YAML config with base and clients; configs/ has an example.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The directory of the service.")],
    as_json: AsJson = False,
) -> None:
    """Train every client that is not there yet, and form their sum. The same command again goes on."""
    from negmerge.cli.progress import RunProgress
    from negmerge.exact import Service, load_exact

    with RunProgress() as progress:
        state = Service(output, progress.listen).learn(load_exact(config))
    _show(state, as_json)


@exact.command()
def forget(
    directory: Directory,
    clients: Annotated[list[str], typer.Argument(help="Names of clients.")],
    as_json: AsJson = False,
) -> None:
    """Delete clients: the sum is formed anew over the others, and has the bits of one that never had them."""
    from negmerge.exact import Service

    _show(Service(directory).forget(clients), as_json)


@exact.command()
def serve(
    directory: Directory,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .safetensors file.")],
    client: Annotated[str | None, typer.Option(help="Whose model; without it the one for rows of no client.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that was served before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the model of a client, and print its hash."""
    from negmerge.exact import Service

    found = Service(directory).serve(output, client, overwrite)
    print_json({"path": str(output), "hash": found}) if as_json else print(f"{found}  {output}")


@exact.command()
def verify(
    directory: Directory,
    again: Annotated[
        list[str] | None, typer.Option("--again", metavar="CLIENT", help="Train it once more and compare; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Form the sum anew and compare it; check every hash and sign, and that nothing is left of who was deleted."""
    from negmerge.exact import Service

    found = Service(directory).verify(again or [])
    if as_json:
        print_json(found)
        return
    trained = f", {len(found['trained_again'])} trained once more to the same bits" if found["trained_again"] else ""
    print(f"{directory}: the sum is that of {found['clients']} clients{trained}; {len(found['deleted'])} were deleted")


def _show(state: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    for one in state["clients"]:
        share = 100 * one["kept"] / one["elements"]
        print(f"  {one['name']:<24} {one['rows']:>7,} rows  {share:5.1f} % of elements  {one['vector'][-16:]}")
    print(f"{len(state['clients'])} clients, {len(state['deleted'])} deleted; sum {state['sum']}")
