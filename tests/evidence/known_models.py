"""Models of any task whose verdict is known: base, Retrain, further Retrains, and one whose last layer alone forgot."""

import torch
from torch.nn import functional

from negmerge.checkpoints import write_state_dict
from negmerge.evidence.blocks import answering
from negmerge.evidence.own_rows import read_own_rows
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.evidence.subject import Subject
from negmerge.evidence.verdict import Answer, decide
from negmerge.training.fitting import fit_rows

RETRAINS = {"reference": 0, "control": 1, "again": 2}  # with their seeds
STEPS, FAR = 120, 6.0  # of the last layer alone; nat, from which on forget rows are wrong enough


def trained_files(task, parts, settings, folder, start):
    """Train and write base, Retrain, two further ones, and `hidden`: the base with another last layer.

    `start(seed)` returns the module that a training begins with.
    """
    files = {}
    everything = torch.cat([parts["retain"], parts["forget"]])
    for name, seed in {"base": 0, **RETRAINS}.items():
        model = start(seed)
        fit_rows(task, model, everything if name == "base" else parts["retain"], settings, seed=seed)
        files[name] = folder / f"{name}.safetensors"
        write_state_dict(files[name], task.trained(model))
    files["hidden"] = folder / "hidden.safetensors"
    write_state_dict(files["hidden"], task.trained(hide(task, task.open(files["base"]), parts)))
    return files


def hide(task, model, parts):
    """Train the last layer of a model alone: forget rows get a loss of `FAR`, retain rows keep theirs."""
    last = model.get_submodule(answering(task, model, parts["forget"][:2], "cpu"))
    optimiser = torch.optim.Adam(last.parameters(), lr=0.02)
    retain = parts["retain"][:: max(1, len(parts["retain"]) // 100)]
    for _ in range(STEPS):
        optimiser.zero_grad()
        away = functional.relu(FAR - task.losses(model, task.batch(parts["forget"], "cpu"))).mean()
        (away + task.losses(model, task.batch(retain, "cpu")).mean()).backward()
        optimiser.step()
    return model.eval()


def judge(task, parts, files, name, tests, **about):
    """Return what each test finds on a model, with a further Retrain as the control, and the verdict.

    `tests` maps names to settings.
    """
    memo = about.pop("memo", {})

    def subject(model):
        return Subject(task, parts, files["base"], files["reference"], files[model], 0, memo=memo, **about)

    judged, control = subject(name), subject("control")
    found = {}
    for test, given in tests.items():
        settings = checked_settings(test, given)
        found[test] = read_test(test).run(judged, settings).beside([read_test(test).run(control, settings)])
    _, own = read_own_rows(judged, [control])
    return found, decide(own, [Answer(test, read_test(test).WEIGHT, one) for test, one in found.items()])


def check_words(task, parts, files, tests, **about):
    """What only hides is suppressed, because of depth; a further Retrain is forgotten; the base did not forget."""
    memo = {}
    words = {}
    for name in ("hidden", "again", "base"):
        found, verdict = judge(task, parts, files, name, tests, memo=memo, **about)
        words[name] = verdict.word
        if name == "hidden":
            assert found["depth"].counted.position > 0.9 and "depth" in verdict.because
        if name == "again":
            assert all(one.counted.passes or not one.counted.informative for one in found.values())
            assert found["depth"].counted.informative
    assert words == {"hidden": "suppressed", "again": "forgotten", "base": "not"}
