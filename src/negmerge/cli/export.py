"""`negmerge export`: a row of a finished run as a model to ship."""

from pathlib import Path
from typing import Annotated, Any

import typer

from negmerge.cli.merge import AsJson
from negmerge.cli.printing import print_json


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")],
    method: Annotated[
        str | None, typer.Option(help="The row to export.  [the one that the evidence judged, or the first]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of a run of several seeds.  [the first]")] = None,
    no_ids: Annotated[
        bool, typer.Option("--no-ids", help="Name no row, class or data set, and leave out the page.")
    ] = False,
    adapter_on: Annotated[
        Path | None,
        typer.Option("--adapter-on", metavar="CLEAN", help="Ship an adapter on this model, which never saw the rows."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of that adapter.")] = None,
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", metavar="KEY.pem", help="Sign everything with this private key.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what negmerge wrote there.")] = False,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Then remove from the run what knows the forget set: members, vectors, rows."),
    ] = False,
    purge_base: Annotated[bool, typer.Option("--purge-base", help="As --purge, and the base too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the unlearned model as the base was given, with card, public record and page, and sign it.

    Nothing in DIR gives the base back or shows the forget set. The same command again finishes what was interrupted.
    """
    from negmerge.experiment.exporting.export import export as export_row

    done = export_row(
        run_dir,
        output,
        method=method,
        seed=seed,
        ids=not no_ids,
        adapter_on=adapter_on,
        rank=rank,
        sign_key=sign_key,
        overwrite=overwrite,
        purge=purge,
        purge_base=purge_base,
    )
    if as_json:
        left: list[dict[str, Any]] = [{"path": path, "what": what} for path, what in done.left]
        print_json(
            {
                "path": str(done.path),
                "method": done.method,
                "verdict": done.verdict,
                "signed": done.signed,
                "sha256": dict(done.sha256),
                "removed": list(done.removed),
                "left": left,
            }
        )
        return
    for name, digest in done.sha256.items():
        print(f"{digest}  {name}")
    print(f"{done.path}: row {done.method}{', signed' if done.signed else ''}. {done.verdict or 'No test was made.'}")
    if done.removed:
        print(f"Removed from {run_dir}: {', '.join(done.removed)}")
    print(f"What still knows the rows, or was made to forget them ({run_dir}):")
    for path, what in done.left:
        print(f"  {path}: {what}")
