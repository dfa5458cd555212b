"""`negmerge merge`: checkpoints in, one checkpoint out."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from negmerge.cli.completing import merge_settings, registered
from negmerge.cli.printing import print_json

if TYPE_CHECKING:
    from negmerge.merging.output.reports import MergeReport
    from negmerge.projection import Projection


def _value(text: Any) -> Any:
    """Return the value of an option as `--set` reads it; a text that has none stays, and is refused with the rest."""
    from negmerge.errors import InputError
    from negmerge.parsing import parse_value

    if not isinstance(text, str) or not text.strip():
        return text
    try:
        return parse_value(text)
    except InputError:
        return text


Base = Annotated[Path, typer.Argument(help="The original model: a file, a Hugging Face folder, or a hub id.")]
BaseOrRecipe = Annotated[
    Path, typer.Argument(help="The original model: a file, a Hugging Face folder, or a hub id; or a recipe, NAME.yaml.")
]
Members = Annotated[list[Path] | None, typer.Argument(help="The models fine-tuned from it on the forget set.")]
Include = Annotated[
    list[str] | None, typer.Option(metavar="REGEX", help="Merge only tensors whose name matches; repeatable.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="REGEX", help="Leave out tensors whose name matches; repeatable.")
]
threshold_option = typer.Option(parser=_value, metavar="SHARE", help="Of the members that must agree.  [1.0]")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


METHODS = registered("methods", package="negmerge.merging.methods")
RECIPES = (".yaml", ".yml")
BESIDE_A_RECIPE = ("base", "output", "device", "workers", "no_hash", "overwrite", "as_json")


def merge(
    context: typer.Context,
    base: BaseOrRecipe,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="OUT: one file if it ends in .safetensors, a folder if it has no ending."),
    ],
    members: Members = None,
    method: Annotated[
        str, typer.Option(help="A merge method of `negmerge list methods`.", autocompletion=METHODS)
    ] = "consensus",
    threshold: Annotated[float | None, threshold_option] = None,
    mean: Annotated[str | None, typer.Option(help="Average over all members, or the agreeing.  [all]")] = None,
    zeros: Annotated[str | None, typer.Option(help="A zero may veto or abstain.  [veto]")] = None,
    alpha: Annotated[float, typer.Option(parser=_value, metavar="NUMBER", help="Scale of the negation.")] = 1.0,
    add: Annotated[bool, typer.Option("--add", help="Add the merged vector instead of subtracting it.")] = False,
    origin: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="What the MEMBERs were trained from, if it is not BASE.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Importance weights, such as Fisher information.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    buffers: Annotated[
        str, typer.Option(help="Running statistics: keep the base's, or negate them like weights.")
    ] = "keep",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting; KEY[REGEX]=VALUE for some tensors; repeatable.",
            autocompletion=merge_settings,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(parser=_value, metavar="NUMBER", help="Of the methods that draw at random.")] = 0,
    device: Annotated[str, typer.Option(help="Where the arithmetic runs: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the output's floats: base, float32, float16, bfloat16.")] = "base",
    workers: Annotated[int | None, typer.Option(parser=_value, metavar="NUMBER", help="Threads.  [up to 8]")] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the weight files of a folder, such as 500MB.  [5GB]")
    ] = None,
    project: Annotated[
        Path | None, typer.Option(metavar="MOMENTS", help="Strip the vector of what acts on the retain rows of a file.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(parser=_value, metavar="NUMBER", help="Of the projection, λ.  [10]")
    ] = None,
    as_adapter: Annotated[
        int | None,
        typer.Option(parser=_value, metavar="RANK", help="Write the change as one adapter of this rank."),
    ] = None,
    no_hash: Annotated[bool, typer.Option("--no-hash", help="Record sizes of the inputs only.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an OUT that negmerge wrote.")] = False,
    as_json: AsJson = False,
) -> None:
    """Subtract from BASE what the MEMBERs' changes have in common, and write the result to OUT.

    Or give a recipe, a YAML file, in the place of BASE and MEMBERs.
    """
    from negmerge.errors import InputError
    from negmerge.execution.compiling import load_without_linear_algebra
    from negmerge.merging.engine import merge_checkpoints

    load_without_linear_algebra()
    if base.suffix in RECIPES and not members:
        how = {"device": device, "workers": workers, "hash_inputs": not no_hash, "overwrite": overwrite}
        _merge_recipe(context, base, output, as_json, how)
        return
    chosen, wrong = read_settings(settings, threshold=threshold, mean=mean, zeros=zeros)
    common: dict[str, Any] = {
        "method": method,
        "alpha": alpha,
        "add": add,
        "origin": origin,
        "weights": weights,
        "include": include or (),
        "exclude": exclude or (),
        "seed": seed,
        "device": device,
        "workers": workers,
        "hash_inputs": not no_hash,
        "overwrite": overwrite,
    }
    if wrong:
        shape = {"dtype": dtype, "max_shard_size": max_shard_size, "rank": as_adapter}
        more = {"buffers": buffers, "members": members or []}
        _refuse(wrong, chosen, {**common, **shape, **more})
    common["settings"] = chosen
    with ExitStack() as stack:
        bar = stack.enter_context(_Bar())
        common["on_event"] = bar.listen
        common["projection"] = _projection(stack, project, strength)
        report: MergeReport
        if as_adapter is None:
            common |= {"dtype": dtype, "max_shard_size": max_shard_size, "buffers": buffers}
            report = merge_checkpoints(base, members or [], output, **common)
        elif buffers != "keep":
            raise InputError("--as-adapter holds no running statistics; leave --buffers out")
        elif dtype != "base" or max_shard_size is not None:
            raise InputError("--as-adapter writes float32 factors in one file; leave --dtype and --max-shard-size out")
        else:
            from negmerge.merging.as_adapter import merge_as_adapter  # imports torch

            report = merge_as_adapter(base, members or [], output, as_adapter, **common)
    if as_json:
        print_json(report.as_json())
        return
    _print_merge(report)


def _projection(stack: ExitStack, moments: Path | None, strength: float | None) -> "Projection | None":
    """Open a moments file for as long as the stack is; None without one. Raises InputError for a strength alone."""
    from negmerge.errors import InputError

    if moments is None:
        if strength is not None:
            raise InputError("--strength is that of a projection; give --project MOMENTS too")
        return None
    from negmerge.merging.layer_change import STRENGTH
    from negmerge.projection import Moments, Projection  # imports torch

    if isinstance(strength, str):
        raise InputError(f"--strength {strength}: give a number from 0, such as 10")
    return Projection(stack.enter_context(Moments(moments)), STRENGTH if strength is None else strength)


def _print_merge(report: "MergeReport") -> None:
    """Print what a merge was made of, what it kept, changed and left out, and its warnings."""
    print(report.title)
    for word, text in report.summary():
        print(f"  {word:<10} {text}")
    for warning in report.warnings:
        print(f"warning: {warning}")


def _merge_recipe(context: typer.Context, recipe: Path, output: Path, as_json: bool, how: dict[str, Any]) -> None:
    """Merge by a recipe, and print what each of its terms kept. Raises InputError for options that belong into it."""
    from negmerge.errors import InputError
    from negmerge.projection.recipe import merge_recipe

    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in BESIDE_A_RECIPE and (source := context.get_parameter_source(name)) and source.name != "DEFAULT"
    ]
    if given:
        raise InputError(f"{', '.join(given)}: the recipe {recipe} says all this; write it there")
    with _Bar() as bar:
        report = merge_recipe(recipe, output, on_event=bar.listen, **how)
    if as_json:
        terms = [term.as_json() for term in report.terms]
        print_json({**report.as_json(), "terms": terms})
        return
    _print_merge(report)


def read_settings(pairs: list[str] | None, **named: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the settings given by their own options and by --set, and a line for each --set that cannot be read."""
    from negmerge.errors import InputError
    from negmerge.parsing import parse_change

    chosen = {key: value for key, value in named.items() if value is not None}
    wrong = []
    for pair in pairs or []:
        try:
            key, value = parse_change(
                pair, r"\w+(?:\[.*\])?", "KEY=VALUE or KEY[REGEX]=VALUE, for example --set threshold=0.8"
            )
        except InputError as error:
            wrong.append(str(error))
            continue
        if key in chosen:
            wrong.append(f"--set {pair}: {key} is given twice")
        chosen[key] = value
    return chosen, wrong


def _refuse(wrong: list[str], settings: dict[str, Any], options: dict[str, Any]) -> NoReturn:
    """Raise one error for what could not be read, and for all else that is wrong with the request."""
    from negmerge.checking import MistakesError
    from negmerge.merging.request import check_request

    try:
        check_request(settings=settings, **options)
    except MistakesError as error:
        wrong = [*wrong, *error.lines]
    raise MistakesError("", wrong)


class _Bar:
    """Progress in bytes on stderr."""

    def __enter__(self) -> "_Bar":
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("merging", total=None)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def listen(self, event: dict[str, Any]) -> None:
        """Show how many bytes are done."""
        self._progress.update(self._task, completed=event["bytes"], total=event["of"])
