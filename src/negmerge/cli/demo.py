"""`negmerge demo`: the whole way, on data that comes with scikit-learn."""

import shutil
from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The run directory.")] = Path("runs/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove an earlier demo there first.")] = False,
) -> None:
    """Watch a small network forget the digit 3: nine fine-tunings, one merge, a report. About a minute."""
    from negmerge.cli.run import result_text, run_shown
    from negmerge.experiment.config import check_config
    from negmerge.parsing import parse_yaml

    text = (Path(__file__).parent / "demo.yaml").read_text()
    if fresh and (output / "config.yaml").exists():
        shutil.rmtree(output)
    results, place = run_shown(check_config(parse_yaml(text), "demo.yaml"), output)
    print(result_text(results, place))
    print(f"The config behind it: {place / 'config.yaml'}; your own: negmerge run CONFIG")
