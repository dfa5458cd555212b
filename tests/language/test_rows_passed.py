"""The rows that a dry run counts for a method are those that really pass through the tiny model."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_language import config_of, facts, save, write
from torch.nn.modules.module import register_module_forward_hook

from contexts import context_maker
from negmerge.checkpoints import write_state_dict
from negmerge.experiment.config import check_config
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun
from negmerge.unlearning.method import method_of, passes_of

PAIRED = ("grad-diff", "npo", "simnpo", "rmu", "idk-dpo")
SHORT = {"epochs": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The stages of a run whose base has drawn weights: what is counted does not hang on them."""
    folder = tmp_path_factory.mktemp("untrained")
    save(folder / "model")
    write(folder / "facts.jsonl", facts(22))
    write(folder / "unseen.jsonl", facts(4, seed=1))
    config, place = check_config(config_of(folder)), RunDir(folder / "run")
    found = SeedRun(place, config, prepare(place, config), 0)
    base = folder / "base.safetensors"
    write_state_dict(base, found.material.task.trained(found.material.task.template()))
    return found, base


@pytest.fixture
def passed():
    """How many rows passed through a language model: with gradients (True) and without (False)."""
    counted = Counter()

    def count(module, inputs, output):
        if isinstance(module, torch.nn.Embedding):  # the first of its modules: rmu ends a pass half way
            counted[torch.is_grad_enabled()] += len(output)

    handle = register_module_forward_hook(count)
    yield counted
    handle.remove()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, SHORT) for name in PAIRED),
        *((name, {**SHORT, "retain_weight": 0}) for name in PAIRED),
        ("grad-diff", {"epochs": 1, "batch_size": 16}),  # of few forget rows as many retain rows as a batch has
        ("gradient-ascent", SHORT),
        ("fine-tune", SHORT),
        ("l1-sparse", SHORT),
        ("ssd", {"samples": 4}),
    ],
)
def test_what_a_dry_run_counts_is_what_passes(name, settings, untrained, passed, tmp_path):
    found, base = untrained
    context = replace(context_maker(found, tmp_path)(name), base=base)
    method = method_of(name)
    chosen = method.Settings(**settings)
    rows = {part: len(getattr(context.data, part)) for part in ("forget", "retain")}
    method.unlearn(context, chosen)
    told = passes_of(method, chosen, rows)
    assert (told.trained + told.shared, told.evaluated) == (passed[True], passed[False])
    assert rows["forget"] % 2 == 0 and passed[True] > 0
