"""`negmerge run`: from a config to an unlearned, evaluated, reported model."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from negmerge.cli.printing import print_json


def run(
    config: Annotated[Path, typer.Argument(help="A YAML config; configs/ has examples.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The run directory.  [runs/NAME]")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable.")
    ] = None,
    executor: Annotated[str, typer.Option(help="Where members are trained: local.")] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    purge_pool: Annotated[
        bool, typer.Option("--purge-pool", help="Remove the members and the decoded images at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run an experiment: split, base, pool, merge, choose α, evaluate, report. The same command again resumes."""
    from negmerge.errors import InputError
    from negmerge.experiment.config import load_config

    if executor != "local":
        raise InputError(f"--executor {executor}: there is only local")
    checked = load_config(config, changes or [])
    if dry_run:
        from negmerge.experiment.plan import plan

        made = plan(checked).as_json()
        print_json(made) if as_json else print(plan_text(checked.name, made))
        return
    results, place = run_shown(checked, output, purge_pool=purge_pool)
    print_json(results) if as_json else print(result_text(results, place))


def run_shown(config: Any, output: Path | None, *, purge_pool: bool = False) -> tuple[dict[str, Any], Path]:
    """Run with progress on stderr; return the results and the run directory."""
    from negmerge.cli.progress import RunProgress
    from negmerge.experiment.pipeline import run as run_experiment

    place = output or Path("runs") / config.name
    command = shlex.join(["negmerge", *sys.argv[1:]])
    with RunProgress() as progress:
        results = run_experiment(config, place, on_event=progress.listen, purge_pool=purge_pool, command=command)
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
            *(f"  member     {member}" for member in plan["members"]),
            "",
            *_ways(plan["ways"]),
        ]
    )


def _ways(ways: list[dict[str, Any]]) -> list[str]:
    """Return what each way to answer the request takes, and what can be claimed, as lines."""
    from negmerge.experiment.alternatives import advice

    def minutes(way: dict[str, Any]) -> str:
        known = way["minutes"]
        return f"{known:.3g} min" if known is not None else f"{way['epoch_minutes']:.3g} min an epoch"

    lines = [f"  {way['name']:<8} {minutes(way):>18}   {way['claim']}" for way in ways]
    return ["Should I just retrain?", *lines, f"  {advice(ways)}"]
