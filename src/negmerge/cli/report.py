"""`negmerge report`: the page of a run, made again from its results, or several runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from negmerge.errors import InputError


def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The directory of a finished run.")],
    table: Annotated[bool, typer.Option("--table", help="Print the result table in Markdown instead.")] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write all results as Markdown to FILE instead.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Lay two runs or more side by side, on one page.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The page of --compare.  [compare.html]")
    ] = None,
) -> None:
    """Build report.html of a finished run from its results, a page in Markdown, or one page of several runs."""
    from negmerge.experiment.pipeline import load_results
    from negmerge.experiment.record import add_byproducts
    from negmerge.report import markdown_table, write_comparison, write_document, write_report

    if compare:
        if table or markdown is not None:
            raise InputError("report: --compare makes a page of its own; leave out --table and --markdown")
        print(write_comparison(run_dirs, output or Path("compare.html")))
        return
    if len(run_dirs) > 1 or output is not None:
        raise InputError("report: several runs, and -o, go with --compare; else give one run")
    (run_dir,) = run_dirs
    if markdown is not None:
        print(write_document(run_dir, markdown))
    elif table:
        print(markdown_table(load_results(run_dir)))
    else:
        page = write_report(run_dir)
        add_byproducts(run_dir)
        print(page)
