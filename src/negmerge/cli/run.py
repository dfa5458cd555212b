"""`negmerge run`: from a config to an unlearned, evaluated, reported model."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from negmerge.cli.completing import config_keys
from negmerge.cli.printing import print_json
from negmerge.errors import InputError, InterruptedRunError

Fresh = Annotated[bool, typer.Option("--fresh", help="Remove what is there of an earlier run first.")]
Purge = Annotated[
    bool, typer.Option("--purge", help="At the end remove what knows the forget set: members, vectors, images.")
]
PurgeBase = Annotated[bool, typer.Option("--purge-base", help="As --purge, and the base too.")]


def run(
    config: Annotated[Path, typer.Argument(help="A YAML config; configs/ has examples.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The run directory.  [runs/NAME]")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable.", autocompletion=config_keys
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="Where members are trained: local.")] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Open everything, print the plan, and stop.")] = False,
    fresh: Fresh = False,
    purge: Purge = False,
    purge_base: PurgeBase = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run an experiment: split, base, pool, merge, choose α, evaluate, report. The same command again resumes.

    A changed floor, objective, grid or method goes on with what is there.
    """
    from negmerge.experiment.config import load_config

    if executor != "local":
        raise InputError(f"--executor {executor}: there is only local")
    checked = load_config(config, changes or [])
    if dry_run:
        print_plan(checked, as_json)
        return
    results, place = run_shown(checked, output, fresh=fresh, purge=purge, purge_base=purge_base)
    print_json(results) if as_json else print(result_text(results, place))


def print_plan(config: Any, as_json: bool) -> None:
    """Print what a run will take; meanwhile, on stderr, what is being done."""
    from negmerge.cli.logs import is_quiet
    from negmerge.experiment.plan import plan

    def tell(line: str) -> None:
        if not is_quiet():
            print(f"  {line}", file=sys.stderr, flush=True)

    made = plan(config, tell).as_json()
    print_json(made) if as_json else print(plan_text(config.name, made))


def run_shown(config: Any, output: Path | None, **options: bool) -> tuple[dict[str, Any], Path]:
    """Run with progress on stderr; return the results and the run directory. `options` are those of `run`.

    Where it is interrupted, how to go on is said on stderr.
    """
    from negmerge.cli.progress import RunProgress
    from negmerge.experiment.pipeline import run as run_experiment

    place = output or Path("runs") / config.name
    words = ["negmerge", *sys.argv[1:]]
    again = shlex.join(word for word in words if word != "--fresh")
    try:
        with RunProgress() as progress:
            results = run_experiment(config, place, on_event=progress.listen, command=shlex.join(words), **options)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; what is done lies in {place}. To go on: {again}") from None
    return results, place


def result_text(results: dict[str, Any], place: Path) -> str:
    """Return the table of a run and where its report is."""
    from negmerge.report import summary_table

    rows = summary_table(results)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    text = "\n".join([f"{results['name']}: {results['task']['text']}", "", *lines, ""])
    if results.get("verdict"):
        from negmerge.report.evidence import evidence_lines

        text += "\n".join(["", *evidence_lines(results), ""])
    advice = results["pool"].get("advice")
    text += f"\nadvice: {advice}" if advice else ""
    for warning in results["warnings"]:
        text += f"\nwarning: {warning['name']} ({warning['method']}): {warning['text']}; {warning['advice']}"
    return f"{text}\nReport: {place / 'report.html'}"


def plan_text(name: str, plan: dict[str, Any]) -> str:
    """Return a plan as lines for people."""
    rows = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in plan["rows"].items() if count)
    return "\n".join(
        [
            f"{name}: {len(plan['members'])} members, {plan['seeds']} seed(s)",
            f"  rows       {rows}",
            f"  passes     {plan['training_rows']:,} {plan['noun']}s to train base, reference and methods, "
            f"{plan['pool_rows']:,} to train the pool, {plan['evaluated_rows']:,} evaluated",
            f"  minutes    about {plan['minutes']:.1f} "
            f"({plan['rows_per_second']:.0f} {plan['noun']}s/s of training a thread)",
            f"  disk       about {plan['disk'] / 1e6:.0f} MB",
            *_lasting(plan["lasting"]),
            *(f"  evidence   {test['name']}: about {test['minutes']:.2g} min" for test in plan["evidence"]),
            *(f"  member     {member}" for member in plan["members"]),
            "",
            *_ways(plan["ways"]),
        ]
    )


def _lasting(found: dict[str, Any] | None) -> list[str]:
    """Return what the objective lasting takes as a line, if it is the run's."""
    if found is None:
        return []
    return [
        f"  lasting    about {found['models']} models are tested while α is chosen, {found['at_most']} at most, each "
        f"about {found['seconds']:.2g} s; curves of base and Retrain {found['curves']:.2g} s; in all about "
        f"{found['minutes']:.2g} min"
    ]


def _ways(ways: list[dict[str, Any]]) -> list[str]:
    """Return what each way to answer the request takes, and what can be claimed, as lines."""
    from negmerge.experiment.alternatives import advice

    def minutes(way: dict[str, Any]) -> str:
        known = way["minutes"]
        return f"{known:.3g} min" if known is not None else f"{way['epoch_minutes']:.3g} min an epoch"

    lines = [f"  {way['name']:<8} {minutes(way):>18}   {way['claim']}" for way in ways]
    return ["Should I just retrain?", *lines, f"  {advice(ways)}"]
