"""How fast negmerge merges, against the disk and against its peers, on the same files in one run.

    python benchmarks/merge.py --folder DIR [--cases clip,clip-30,small,bf16] [--peers .venv-peers/bin/python] [--write]

Every contender runs in a process of its own, in turns, so that a busy moment of the machine meets all of them; the
files are in the page cache, and each has run once in its process before it counts. Seconds are from opening the inputs
to the finished output, without imports and without loading compiled loops; one line has the whole command, with them.
negmerge and the floor sync their output to the disk, the others do not.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import torch
from merge_pools import CASES, Case, files_of, make_pool

from negmerge.checkpoints import open_checkpoint

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "docs" / "results"
FLOOR, OURS, HASHED, BLAKE3 = "floor", "consensus", "hashed", "blake3"
COMMANDS = {"command": ["--no-hash"], "command-hashed": []}


@dataclass
class Contender:
    """One line of a table: how to run it, and whose result its own must equal."""

    name: str
    text: str
    ending: str = "safetensors"
    peer: bool = False
    rounds: int = 100  # at most: for what takes minutes
    same_as: str = ""
    runs: list[dict[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return statistics.median(run["seconds"] for run in self.runs)


def contenders(case: Case, peers: Path | None) -> list[Contender]:
    found = [
        Contender(FLOOR, "floor: read every byte, write the output, sync it"),
        Contender(OURS, "**negmerge** consensus, `--no-hash`"),
        Contender(HASHED, "negmerge consensus, inputs hashed (the default)"),
        Contender("command", "the whole command `negmerge merge --no-hash`, from the start of Python"),
        Contender("command-hashed", "the whole command `negmerge merge`, from the start of Python"),
        Contender("inspect", "negmerge inspect"),
        Contender(BLAKE3, "BLAKE3 alone of as many bytes as the inputs have, from the cache, all threads"),
    ]
    if case.name == "clip":
        found += [
            Contender("uniform", "negmerge uniform, `--no-hash`"),
            Contender("ties", "negmerge TIES, `--no-hash`"),
            Contender("from-pt", "negmerge consensus of `.pt` files, `--no-hash`", "pt", same_as=OURS),
            Contender("published-loop", "the published loop (`.pt`)", "pt", peer=True, same_as=OURS),
        ]
        if peers:
            found += [
                Contender("mergekit-task-arithmetic", "mergekit task_arithmetic", peer=True, same_as="uniform"),
                Contender("mergekit-ties", "mergekit ties", peer=True, same_as="ties", rounds=5),
            ]
    return found


def run(contender: Contender, case: Case, folder: Path, threads: int, peers: Path | None) -> None:
    base, *members = (str(path) for path in files_of(case, folder, contender.ending))
    output = result_of(contender, case, folder)
    shutil.rmtree(output, ignore_errors=True) if output.is_dir() else output.unlink(missing_ok=True)
    if contender.name in COMMANDS:
        words = [str(Path(sys.executable).parent / "negmerge"), "merge", base, *members, "-o", str(output), "--json"]
        words += ["--workers", str(threads), *COMMANDS[contender.name]]
    else:
        python = str(peers) if contender.name.startswith("mergekit") else sys.executable
        words = [python, str(HERE / "merge_contenders.py"), contender.name, str(threads), str(output), base, *members]
    # An installed package has its bytecode; a checkout would be compiled anew where nobody may write any.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["OMP_NUM_THREADS"] = str(threads)
    os.sync()  # what the others left on its way to the disk
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{contender.name} failed:\n{done.stderr[-2000:]}")
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = wall if contender.name in COMMANDS else facts["seconds"]
    contender.runs.append({"seconds": seconds, "peak_rss": facts["peak_rss"]})


def result_of(contender: Contender, case: Case, folder: Path) -> Path:
    endings = {"mergekit": "", "publish": ".pt"}
    return folder / case.name / f"result-{contender.name}{endings.get(contender.name[:7], '.safetensors')}".rstrip(".")


def measure(
    case: Case, folder: Path, repeats: int, threads: int, peers: Path | None, only: list[str] | None = None
) -> dict[str, Any]:
    print(f"{case.text}: making the files", file=sys.stderr)
    make_pool(case, folder)
    lines = [line for line in contenders(case, peers) if only is None or line.name in only]
    for line in lines[:2]:  # fills the page cache, compiles the loops where that was not done
        run(line, case, folder, threads, peers)
        line.runs.clear()
    for i in range(repeats):
        for line in (line for line in lines if i < line.rounds):
            run(line, case, folder, threads, peers)
            print(f"{case.name} {i + 1}/{repeats} {line.name:<26} {line.runs[-1]['seconds']:8.2f} s", file=sys.stderr)
    by_name = {line.name: line for line in lines}
    rows = []
    for line in lines:
        facts: dict[str, Any] = {"name": line.name, "text": line.text, "runs": line.runs}
        if line.same_as:
            facts["differs"] = largest_difference(
                result_of(line, case, folder), result_of(by_name[line.same_as], case, folder)
            )
        rows.append(facts)
    for line in lines:
        output = result_of(line, case, folder)
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    return {"case": case.name, "text": case.text, "parameters": case.parameters, "repeats": repeats, "rows": rows}


def largest_difference(a: Path, b: Path) -> float:
    """The largest difference of any two elements that should be equal."""
    one, two = open_checkpoint(a), open_checkpoint(b)
    assert set(one.names) == set(two.names), (a, b)
    return max(float((one.read(name).double() - two.read(name).double()).abs().max()) for name in two.names)


def table(result: dict[str, Any]) -> str:
    """One case as Markdown."""
    median = {r["name"]: statistics.median(run["seconds"] for run in r["runs"]) for r in result["rows"]}
    against = {"published-loop": OURS, "mergekit-task-arithmetic": "uniform", "mergekit-ties": "ties"}
    lines = [
        f"### {result['text']}",
        "",
        "| what | n | median s | from – to | × floor | negmerge is faster by | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        seconds = [run["seconds"] for run in row["runs"]]
        peak = max(run["peak_rss"] for run in row["runs"]) / 2**20
        ours = against.get(row["name"])
        faster = f"{median[row['name']] / median[ours]:.1f} × ({ours})" if ours else ""
        lines.append(
            f"| {row['text']} | {len(seconds)} | {median[row['name']]:.2f} | {min(seconds):.2f} – {max(seconds):.2f} "
            f"| {median[row['name']] / median[FLOOR]:.2f} | {faster} | {peak:,.0f} |"
        )
    if HASHED in median and BLAKE3 in median:
        hashing = (median[HASHED] - median[OURS]) / median[BLAKE3]
        lines += ["", f"Hashing added {median[HASHED] - median[OURS]:.2f} s: {hashing:.2f} × BLAKE3 alone."]
    equal = [f"{r['text']}: {r['differs']:.1e}" for r in result["rows"] if "differs" in r]
    if equal:
        lines += ["", f"Largest difference of any weight to negmerge's result: {'; '.join(equal)}."]
    return "\n".join([*lines, ""])


def processor() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip() if found else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the files are made and kept")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--only", help="some of the lines, such as floor,consensus,hashed,blake3; not with --write")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peers", type=Path, help="the Python of an environment with mergekit (make bench-peers)")
    parser.add_argument("--clean", action="store_true", help="remove the files of each case when it is done")
    parser.add_argument("--write", action="store_true", help="write docs/results/merge.json and the tables of merge.md")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else None
    if only and (options.write or not {FLOOR, OURS} <= {*only}):
        parser.error("--only needs floor and consensus, and does not go with --write")
    machine = (
        f"{processor()}, {os.cpu_count()} cores, {options.threads} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, numba {numba.__version__}"
    )
    results = []
    for name in options.cases.split(","):
        results.append(measure(CASES[name], options.folder, options.repeats, options.threads, options.peers, only))
        print(table(results[-1]))
        if options.clean:
            shutil.rmtree(options.folder / name)
    if options.write:
        write({"machine": machine, "cases": results})


def write(found: dict[str, Any]) -> None:
    """Put the numbers into merge.json, and the tables between the marks of merge.md; other cases stay."""
    file, page = RESULTS / "merge.json", RESULTS / "merge.md"
    known = json.loads(file.read_text())["cases"] if file.exists() else []
    fresh = {result["case"]: result for result in [*known, *found["cases"]]}
    found["cases"] = [fresh[name] for name in CASES if name in fresh]
    file.write_text(json.dumps(found, indent=1) + "\n")
    before, _, rest = page.read_text().partition("<!-- tables -->\n")
    after = rest.partition("<!-- end -->\n")[2]
    tables = "\n".join([f"{found['machine']}.\n", *map(table, found["cases"])])
    page.write_text(f"{before}<!-- tables -->\n{tables}<!-- end -->\n{after}")


if __name__ == "__main__":
    main()
