"""The command line: one file for each command, parsing and printing only."""

import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from negmerge.cli.demo import demo
from negmerge.cli.exact import exact
from negmerge.cli.export import export
from negmerge.cli.inspect import inspect
from negmerge.cli.listing import list_names
from negmerge.cli.logs import set_up, taken_out
from negmerge.cli.merge import merge
from negmerge.cli.moments import moments
from negmerge.cli.report import report
from negmerge.cli.rows import rows
from negmerge.cli.run import run
from negmerge.cli.schema import schema
from negmerge.cli.unlearn import unlearn
from negmerge.cli.verify import verify
from negmerge.errors import NegmergeError
from negmerge.version import __version__

app = typer.Typer(
    help="Make a trained model forget, by merging what fine-tunings on the forget set agree on.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "merge": merge,
    "inspect": inspect,
    "unlearn": unlearn,
    "moments": moments,
    "run": run,
    "rows": rows,
    "report": report,
    "export": export,
    "verify": verify,
    "list": list_names,
    "schema": schema,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(exact, name="exact")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"negmerge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing on stderr but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log what is done on stderr; twice: every event.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed while running, 2 the request or an input was wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    # These options may stand anywhere: they belong to no command.
    words, level = taken_out([word for word in words if word != "--debug"])
    set_up(level)
    try:
        app(words, prog_name="negmerge", standalone_mode=True)
    except Exception as error:
        if debug:
            raise
        message, code = _explain(error)
        print(f"negmerge: {message}", file=sys.stderr)
        sys.exit(code)
    sys.exit(0)


def _explain(error: Exception) -> tuple[str, int]:
    """Return one line for an error, and the exit code."""
    if isinstance(error, NegmergeError):
        return str(error), error.exit_code
    if isinstance(error, ModuleNotFoundError):
        return f"this command needs the package {error.name}: pip install 'negmerge[experiments]'", 2
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    return f"unexpected {type(error).__name__}: {error}; with --debug it shows where", 1
