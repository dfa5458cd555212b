"""The command line: one file for each command, parsing and printing only."""

import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from negmerge import __version__
from negmerge.cli.demo import demo
from negmerge.cli.inspect import inspect
from negmerge.cli.listing import list_names
from negmerge.cli.merge import merge
from negmerge.cli.report import report
from negmerge.cli.run import run
from negmerge.cli.verify import verify
from negmerge.errors import NegmergeError

app = typer.Typer(
    help="Make a trained model forget, by merging what fine-tunings on the forget set agree on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "merge": merge,
    "inspect": inspect,
    "run": run,
    "report": report,
    "verify": verify,
    "list": list_names,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"negmerge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed while running, 2 the request or an input was wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    # The option may stand anywhere: it belongs to no command.
    words = [word for word in words if word != "--debug"]
    try:
        app(words, standalone_mode=True)
    except NegmergeError as error:
        if debug:
            raise
        print(f"negmerge: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"negmerge: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
