"""`negmerge report`: the page of a run, made again from its results."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    table: Annotated[bool, typer.Option("--table", help="Print the result table in Markdown instead.")] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write all results as Markdown to FILE instead.")
    ] = None,
) -> None:
    """Build report.html of a finished run from its results, or a page in Markdown."""
    from negmerge.experiment.pipeline import load_results
    from negmerge.experiment.record import add_byproducts
    from negmerge.report import markdown_table, write_document, write_report

    if markdown is not None:
        print(write_document(run_dir, markdown))
    elif table:
        print(markdown_table(load_results(run_dir)))
    else:
        page = write_report(run_dir)
        add_byproducts(run_dir)
        print(page)
