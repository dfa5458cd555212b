"""The membership attack's own support-vector machine against scikit-learn's, on the same rows in the same run.

`python benchmarks/attack.py` prints a table: features between 0 and 1 drawn as the confidences of members and of
others, `rows` of both together. `agree`: share of the rows that both decide alike, scikit-learn at its default
tolerance and, in the last column, at 1e-5. State threads by OMP_NUM_THREADS.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.svm import SVC

from negmerge.scores.svc import fit_svc


def draws(rows: int, random: np.random.Generator) -> dict[str, tuple[Any, Any]]:
    """Return features of half of the rows as members, and of as many others."""
    half = rows // 2
    return {
        "apart": (random.beta(8, 1, half), random.beta(4, 1.5, half)),
        "saturated": (1 - random.random(half) ** 8 / 2, 1 - random.random(half) ** 4),
        "alike": (random.beta(2, 2, half), random.beta(2, 2, half)),
        "right or wrong": ((random.random(half) < 0.99) * 1.0, (random.random(half) < 0.8) * 1.0),
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what is made, and the seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5, help="of our own; scikit-learn's runs once")
    options = parser.parse_args()
    print(f"{options.rows} rows, {os.environ.get('OMP_NUM_THREADS', 'all')} threads, n = {options.repeats}\n")
    print("| features | rank | seconds (least to most) | scikit-learn | ratio | agree % | agree at 1e-5 % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (members, others) in draws(options.rows, np.random.default_rng(0)).items():
        feature = np.concatenate([members, others])
        sign = np.repeat([1.0, -1.0], len(members))
        found = [timed(lambda m=members, o=others: fit_svc(m, o)) for _ in range(options.repeats)]
        machine, seconds = found[0][0], sorted(spent for _, spent in found)
        agree = []
        peers = [
            timed(lambda t=tol, f=feature, s=sign: SVC(C=3, gamma="auto", tol=t).fit(f[:, None], s))
            for tol in (1e-3, 1e-5)
        ]
        for peer, _ in peers:
            agree.append(100 * ((peer.predict(feature[:, None]) > 0) == machine.is_member(feature)).mean())
        ours, theirs = statistics.median(seconds), peers[0][1]
        print(
            f"| {name} | {len(machine.pivots)} | {ours:.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f}) | {theirs:.1f} "
            f"| {theirs / ours:.0f} × | {agree[0]:.2f} | {agree[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
