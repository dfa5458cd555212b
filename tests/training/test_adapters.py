"""Adapters as members: one draw of A, ΔW in merging, health and selection, and modules that PEFT wrapped."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from negmerge import unlearn
from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.sources import digits
from negmerge.tasks.image_classification.store import tables_of
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.training.adapters import AdapterSettings, attach, find_targets, open_member, plain_module, write_adapter
from negmerge.training.job import TrainingJob, train

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

SETTINGS = {"lr": 1e-2, "epochs": 1, "batch_size": 32}
POOL = {"train": {"batch_size": 16}, "grid": {"lr": [1e-2, 3e-2], "epochs": [4, 8]}}


@pytest.fixture
def task():
    return ImageClassification(
        Classifier("small-cnn", {"width": 4}, 10, (1, 8, 8)), tables_of(digits.load(digits.Settings()))
    )


def gpt2():
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    return transformers.GPT2LMHeadModel(config)


def test_targets_are_linear_layers_that_share_nothing():
    assert find_targets(gpt2(), "all-linear") == [
        f"transformer.h.0.{n}" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]
    layers = nn.TransformerEncoderLayer(8, 2, 16)
    assert find_targets(layers, "all-linear") == ["linear1", "linear2"]
    assert find_targets(layers, ["linear2"]) == ["linear2"]
    with pytest.raises(InputError, match=r"no module 'linaer2' \(did you mean 'linear2'\?\)"):
        find_targets(layers, ["linaer2"])
    with pytest.raises(InputError, match=r"no linear layer of its own; name modules: targets: \[conv1\]"):
        find_targets(nn.Sequential(nn.Conv2d(1, 2, 3)), "all-linear")


@pytest.mark.parametrize(("targets", "alpha"), [("all-linear", None), (["0", "3", "11"], 6.0)])
def test_a_member_is_the_trained_model_and_stores_factors_alone(task, tmp_path, targets, alpha):
    base = tmp_path / "base.safetensors"
    write_state_dict(base, task.start(0).state_dict())
    own = AdapterSettings(r=2, alpha=alpha, targets=targets)
    jobs = [
        TrainingJob(name, tmp_path / name, task, tuple(range(64)), SETTINGS, seed, "cpu", base, False, own, 7)
        for seed, name in enumerate("ab")
    ]
    for job in jobs:
        train(job)
    files = sorted(path.name for path in (tmp_path / "a" / "adapter").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    found = [read_state_dict(job.checkpoint / "adapter_model.safetensors") for job in jobs]
    assert all(".lora_A." in name or ".lora_B." in name for name in found[0])
    twin = task.open(base)  # the same training, by hand, without a file between
    names = attach(twin, own, 7)
    start = {name: value.clone() for name, value in twin.named_parameters() if "lora_A" in name}
    assert all(not parameter.requires_grad for name, parameter in twin.named_parameters() if "lora" not in name)
    write_adapter(tmp_path / "untrained", twin, own, names)
    untrained = read_state_dict(tmp_path / "untrained" / "adapter_model.safetensors")
    assert start and all((value == 0).all() == ("lora_B" in name) for name, value in untrained.items())
    distance = [float((f[n] - untrained[n]).norm() / untrained[n].norm()) for f in found for n in f if "lora_A" in n]
    assert max(distance) < 0.5  # both began at the same A; two draws are √2 apart
    member = open_member(task, base, jobs[0].checkpoint)
    theirs = peft.PeftModel.from_pretrained(task.open(base), jobs[0].checkpoint).merge_and_unload()
    for name, value in member.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])
    statistics = [n for n in member.state_dict() if "running" in n]
    assert all(torch.equal(member.state_dict()[n], read_state_dict(base)[n]) for n in statistics)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_tied_weights_change_once(tmp_path):
    model = gpt2()
    write_state_dict(tmp_path / "base.safetensors", {n: v.clone() for n, v in model.state_dict().items()})
    twin = copy.deepcopy(model)
    own = AdapterSettings(r=2, targets=["wte"])
    names = attach(twin, own, 0)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if "lora" in name:
                parameter.normal_()
    write_adapter(tmp_path / "adapter", twin, own, names)

    class Tied:
        def open(self, checkpoint, device="cpu"):
            opened = copy.deepcopy(model)
            opened.load_state_dict(read_state_dict(checkpoint))
            return opened.eval()

    member = open_member(Tied(), tmp_path / "base.safetensors", tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "adapter").merge_and_unload()
    torch.testing.assert_close(member.transformer.wte.weight, theirs.transformer.wte.weight)
    assert member.lm_head.weight.data_ptr() == member.transformer.wte.weight.data_ptr()


@pytest.mark.heavy(5)
def test_a_run_with_a_pool_of_adapters(tmp_path):
    config = {
        "name": "adapters",
        "threads": 1,
        "workers": 1,
        "model": {"family": "small-cnn", "width": 8},
        "data": {"source": "digits", "forget": {"classes": ["3"]}},
        "base": {"train": {"epochs": 6, "lr": 1e-2, "batch_size": 64}},
        "pool": {"adapter": {"r": 4, "targets": ["0", "3", "6", "11"]}, **POOL},
        "methods": ["consensus", "uniform", "best-single", "greedy"],
    }
    results = run(check_config(config), tmp_path / "run")
    base = results["base"]
    for row in results["methods"].values():
        assert row["forget"] < 0.5 * base["forget"] and row["retain"] >= 0.94 * base["retain"], row["label"]
    assert results["pool"]["mean_cosine"] > 0.2 and results["pool"]["adapter"]["r"] == 4
    assert "a LoRA adapter of rank 4 on 0, 3, 6, 11" in (tmp_path / "run" / "report.html").read_text()
    vector = tmp_path / "run" / "private" / "methods" / "consensus" / "merged.safetensors"
    assert set(read_state_dict(vector)) == {"0.weight", "3.weight", "6.weight", "11.weight"}
    assert not list((tmp_path / "run" / "private" / "pool").glob("*/model.safetensors"))
    again = run(check_config(config), tmp_path / "run")
    assert again == results


def rows():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=g) + 3 * nn.functional.one_hot(y, 6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, TensorDataset(x[y == 0], y[y == 0]), TensorDataset(x[y != 0], y[y != 0])


def test_a_module_that_peft_wrapped_works_on_its_change():
    model, forget, retain = rows()
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
    before = {name: value.clone() for name, value in wrapped.state_dict().items()}
    plain, settings = plain_module(wrapped)
    assert settings == AdapterSettings(r=3, alpha=6.0, targets=["0", "2"]) and plain_module(model) == (model, None)
    x = forget.tensors[0]
    torch.testing.assert_close(plain(x), wrapped(x))
    done = unlearn(wrapped, forget, retain, pool=POOL)
    assert all(torch.equal(before[name], value) for name, value in wrapped.state_dict().items())
    first, last = done.selection.curve[0].scores, done.selection.scores
    assert first["forget"] > 90 and last["forget"] < 50 and last["retain"] >= 0.95 * first["retain"]
    assert type(done.model) is nn.Sequential and set(done.model.state_dict()) == set(model.state_dict())
    with pytest.raises(InputError, match="wrapped by PEFT with IA3; only LoRA is understood"):
        ia3 = peft.IA3Config(target_modules=["0", "2"], feedforward_modules=["2"])
        plain_module(peft.get_peft_model(copy.deepcopy(model), ia3))
