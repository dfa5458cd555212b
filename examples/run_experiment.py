"""A whole experiment from Python: the config of `negmerge run`, changed, and its results."""

import tempfile
from pathlib import Path

import negmerge
from negmerge.experiment.config import load_config

if __name__ == "__main__":  # members are trained in processes of their own
    config = load_config(
        Path(__file__).parent.parent / "configs" / "digits-class.yaml",
        [
            "pool={train: {batch_size: 32}, grid: {lr: [3.0e-4, 1.0e-3], epochs: [4, 8]}}",
            "methods=[consensus, uniform]",
            "reference=none",
        ],
    )
    directory = Path(tempfile.mkdtemp()) / "run"
    results = negmerge.run(config, directory)
    for name, row in results["methods"].items():
        print(f"{name:<10} α {row['alpha']:<5g} forget {row['forget']:5.1f} %  retain {row['retain']:5.1f} %")
    print(f"report: {directory / 'report.html'}")
