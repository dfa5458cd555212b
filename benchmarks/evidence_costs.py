"""What the tests of evidence take and find on the models of a finished run: seconds of one core, positions.

    python benchmarks/evidence_costs.py RUN CONFIG [NAME | 'NAME:{"setting": value}']...

RUN must hold its further Retrains (it was not purged). Seconds are those of the processor, so that they hold on a
machine that has other work; every test reads the judged row and the controls, as in a run.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from negmerge import registry
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.evidence.subject import Subject
from negmerge.experiment.config import load_config
from negmerge.experiment.evidence import judged_row
from negmerge.experiment.prepare import load_unwritten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("tests", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(given.config, [])
    material, run = load_unwritten(config), given.run
    files = [run / name / "model.safetensors" for name in ("base", "reference", f"methods/{judged_row(config)}")]
    kind = material.split.kind
    judged = Subject(material.task, material.parts, *files, config.seeds[0], kind, material.device, folder=run)
    controls = [replace(judged, model=path) for path in sorted(run.glob("private/controls/*/model.safetensors"))]
    for test in given.tests or registry.names("evidence"):
        name, _, values = test.partition(":")
        settings, held = checked_settings(name, json.loads(values or "{}")), read_test(name)
        started = time.process_time()
        found = held.run(judged, settings).beside([] if held.SEEDS else [held.run(one, settings) for one in controls])
        seconds, reading = time.process_time() - started, found.counted
        place = (
            f"{reading.position:.2f} ({reading.low:.2f} … {reading.high:.2f})" if reading.informative else "can't tell"
        )
        others = ", ".join(f"{one:.2f}" for one in reading.controls)
        print(f"| {test} | {place} | {others or '–'} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
