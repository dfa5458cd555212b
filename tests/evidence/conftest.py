"""A network on half of the digits: the base, Retrain, further Retrains, one with a lowered head's row, one of noise."""

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.evidence.subject import Subject
from negmerge.experiment.config import check_config
from negmerge.experiment.prepare import load_unwritten
from negmerge.training import TrainSettings
from negmerge.training.fitting import fit_rows

CONFIG = {
    "name": "evidence",
    "device": "cpu",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 6, "lr": 0.01, "batch_size": 64, "schedule": "one-cycle"}},
    "reference": {"train": "base"},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3], "epochs": [2, 4]}},
    "methods": ["consensus"],
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """The material, and the weights of each model by name."""
    folder = tmp_path_factory.mktemp("evidence")
    material = load_unwritten(check_config(CONFIG))
    parts, task = material.parts, material.task
    everything = torch.cat([parts["retain"], parts["forget"]])
    files = {}
    retrains = (("reference", 0), ("control", 1), ("again", 2))
    for name, rows, seed in (("base", everything, 0), *((name, parts["retain"], seed) for name, seed in retrains)):
        model = task.start(seed)
        fit_rows(task, model, rows, TrainSettings(**CONFIG["base"]["train"]), seed=seed)
        files[name] = folder / f"{name}.safetensors"
        state = task.trained(model)
        write_state_dict(files[name], state)
        if name == "base":
            lowered = {key: value.clone() for key, value in state.items()}
            lowered["11.weight"][3] *= 0.8
            lowered["11.bias"][3] -= 20.0
            files["head"] = folder / "head.safetensors"
            write_state_dict(files["head"], lowered)
            draw = torch.Generator().manual_seed(0)
            noised = {
                key: value + 2.0 * value.std() * torch.randn(value.shape, generator=draw) if value.dim() > 1 else value
                for key, value in state.items()
            }
            files["noised"] = folder / "noised.safetensors"
            write_state_dict(files["noised"], noised)
    return material, files


@pytest.fixture(scope="session")
def subject_of(weights):
    """The subject in which a model is judged."""
    material, files = weights
    memo = {}  # curves of base and Retrain serve every model

    def make(name, **changes):
        given = {
            "base": files["base"],
            "reference": files["reference"],
            "model": files[name],
            "seed": 0,
            "memo": memo,
            **changes,
        }
        return Subject(material.task, material.parts, **given)

    return make
