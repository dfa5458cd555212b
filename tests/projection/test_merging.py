"""`negmerge merge --project`: the projected vector, applied to checkpoints and written as adapters."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from negmerge import merge, merge_as_adapter, merge_recipe
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.merging.engine import merge_vector
from negmerge.merging.output.verifying import read_record, verify_model
from negmerge.projection import MomentRows, Moments, Projection, project_vector, write_moments


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Linear(16, 40)
        self.wide = nn.Linear(40, 700)

    def forward(self, images):
        return self.wide(self.head(self.norm(self.conv(images)).relu().mean((2, 3))).relu())


def rows(seed):
    images = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return MomentRows(lambda: images.split(10), 40, f"rows {seed}")


@pytest.fixture
def pool(tmp_path):
    """Base, three members and moments of a small network."""
    torch.manual_seed(0)
    net = Net().eval()
    state = net.state_dict()
    save_file(state, tmp_path / "base.safetensors")
    for i in range(3):
        moved = {k: v + 0.1 * torch.randn(v.shape) if v.is_floating_point() else v for k, v in state.items()}
        save_file(moved, tmp_path / f"m{i}.safetensors")
    first = next(iter(rows(1).batches()))[:1]
    write_moments(tmp_path / "moments", net, rows(1), rows(2), lambda model, batch: model(batch), first, {})
    return tmp_path / "base.safetensors", [tmp_path / f"m{i}.safetensors" for i in range(3)], tmp_path / "moments"


def test_a_projected_merge_is_the_projected_vector_applied(pool, tmp_path):
    base, members, file = pool
    merge_vector(base, members, tmp_path / "v.safetensors", method="uniform")
    with Moments(file) as moments:
        report = merge(
            base, members, tmp_path / "out.safetensors", method="uniform", alpha=0.7, projection=Projection(moments, 5)
        )
        project_vector(Projection(moments, 5.0), tmp_path / "v.safetensors", tmp_path / "p.safetensors")
    vector, start, out = (load_file(tmp_path / f"{name}.safetensors") for name in ("p", "base", "out"))
    for name, value in start.items():
        wanted = value - 0.7 * vector[name] if name in vector else value
        torch.testing.assert_close(out[name], wanted)
    changed = sum(int((out[name] != start[name]).sum()) for name in out)
    assert report.as_json()["changed"] == changed
    assert report.projection["without"] == ["norm.bias", "norm.weight"]
    record = read_record(tmp_path / "out.safetensors")
    assert record["projection"]["strength"] == 5.0
    assert record["projection"]["retain"] == {"rows": 40, "about": "rows 2"}
    assert verify_model(tmp_path / "out.safetensors").count


def test_any_cutting_gives_the_same_bytes(pool, tmp_path, monkeypatch):
    base, members, file = pool

    def out(name, **options):
        with Moments(file) as moments:
            merge(base, members, tmp_path / name, method="uniform", projection=Projection(moments, 5), **options)
        return (tmp_path / name).read_bytes()

    whole = out("a.safetensors", workers=1)
    assert out("b.safetensors", workers=4) == whole
    monkeypatch.setattr("negmerge.merging.by_layer.CHUNK", 777)
    assert out("c.safetensors", workers=3) == whole
    monkeypatch.setattr("negmerge.execution.compiling.AVAILABLE", False)  # the plain way takes pieces of any length
    monkeypatch.setattr("negmerge.merging.passes.plain.CHUNK", 999)
    assert out("d.safetensors", workers=2) == whole


def test_moments_of_another_model_are_refused_with_nothing_written(pool, tmp_path):
    base, members, file = pool
    other = {name: 2 * value if name == "head.weight" else value for name, value in load_file(base).items()}
    save_file(other, tmp_path / "other.safetensors")
    with Moments(file) as moments, pytest.raises(InputError, match=r"another model: head\.weight has a norm of"):
        merge(tmp_path / "other.safetensors", members, tmp_path / "o.safetensors", projection=Projection(moments, 1))
    assert not (tmp_path / "o.safetensors").exists()


def test_the_command_projects_and_says_so(pool, tmp_path, capsys):
    base, members, file = pool

    def run(*options):
        with pytest.raises(SystemExit) as stop:
            main(["merge", *map(str, (base, *members)), *options])
        return stop.value.code, capsys.readouterr()

    code, printed = run("-o", str(tmp_path / "o"), "--project", str(file), "--strength", "100")
    assert code == 0
    assert "projected  λ = 100, on 40 rows: rows 2" in printed.out
    assert "left out   norm.bias, norm.weight" in printed.out
    assert "retain projection of strength 100" in (tmp_path / "o" / "README.md").read_text()
    code, printed = run("-o", str(tmp_path / "p.safetensors"), "--project", str(file), "--json")
    assert json.loads(printed.out)["projection"]["strength"] == 10.0
    for options, said in (
        (("--strength", "3"), "give --project MOMENTS too"),
        (("--project", str(file), "--strength", "-1"), "a number from 0, got -1"),
        (("--project", str(file), "--strength", "much"), "give a number from 0"),
        (("--project", str(base)), "is no moments file"),
        (("--project", str(tmp_path / "none")), "none"),
    ):
        code, printed = run("-o", str(tmp_path / "q.safetensors"), *options)
        assert code == 2
        assert said in printed.err


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_stays_one_of_its_rank(tmp_path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "base")
    tuned = peft.get_peft_model(
        transformers.GPT2LMHeadModel(config),
        peft.LoraConfig(r=3, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True),
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    tuned.save_pretrained(tmp_path / "adapter")
    sets = [MomentRows(lambda s=seed: ids(s).split(4), 20, f"rows {seed}") for seed in (1, 2)]
    first = ids(1)[:1]
    write_moments(tmp_path / "moments", model, *sets, lambda own, batch: own(input_ids=batch), first, {})
    with Moments(tmp_path / "moments") as moments:
        report = merge_as_adapter(
            tmp_path / "base", [tmp_path / "adapter"], tmp_path / "out", 3, projection=Projection(moments, 20.0)
        )
        merge(tmp_path / "base", [tmp_path / "adapter"], tmp_path / "whole", projection=Projection(moments, 20.0))
        plain = merge_as_adapter(tmp_path / "base", [tmp_path / "adapter"], tmp_path / "plain", 3)
    assert report.error < 1e-5
    assert plain.projection is None
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(min(value.shape) == 3 for value in weights.values())
    mine = peft.PeftModel.from_pretrained(
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base"), tmp_path / "out"
    )
    other = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        torch.testing.assert_close(mine(input_ids=first).logits, other(input_ids=first).logits, rtol=1e-3, atol=1e-4)
    # B stays: the columns that it spans are those of the plain adapter's.
    before = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    name = next(name for name in weights if "c_fc.lora_B" in name)
    both = torch.cat([weights[name], before[name]], dim=1)
    assert torch.linalg.matrix_rank(both, rtol=1e-4) == 3


def ids(seed):
    return torch.randint(0, 50, (20, 6), generator=torch.Generator().manual_seed(seed))


def other_pool(base, folder):
    """Write two more members of a base, and return them."""
    state = load_file(base)
    for i in range(2):
        torch.manual_seed(50 + i)
        moved = {k: v + 0.1 * torch.randn(v.shape) if v.is_floating_point() else v for k, v in state.items()}
        save_file(moved, folder / f"o{i}.safetensors")
    return [folder / f"o{i}.safetensors" for i in range(2)]


def test_terms_of_a_recipe_are_projected_each_by_its_own(pool, tmp_path, monkeypatch, capsys):
    base, members, file = pool
    others = other_pool(base, tmp_path)
    first = {"members": members, "method": "uniform", "alpha": 0.7, "project": {"moments": file, "strength": 5}}
    plain = {"members": others, "method": "uniform", "sign": "+", "alpha": 0.3}
    report = merge_recipe({"base": base, "terms": [first, plain]}, tmp_path / "out.safetensors")
    merge_vector(base, members, tmp_path / "v.safetensors", method="uniform")
    merge_vector(base, others, tmp_path / "w.safetensors", method="uniform")
    with Moments(file) as moments:
        project_vector(Projection(moments, 5.0), tmp_path / "v.safetensors", tmp_path / "p.safetensors")
    projected, added, start, out = (load_file(tmp_path / f"{name}.safetensors") for name in ("p", "w", "base", "out"))
    for name, value in start.items():
        wanted = value - 0.7 * projected[name] + 0.3 * added[name] if name in added else value
        torch.testing.assert_close(out[name], wanted)
    assert report.projection is None and report.terms[1].projection is None
    assert report.terms[0].projection["without"] == ["norm.bias", "norm.weight"]
    terms = read_record(tmp_path / "out.safetensors")["terms"]
    assert terms[0]["projection"]["strength"] == 5.0 and "projection" not in terms[1]
    # The kept recipe makes the same bytes, whatever the cutting and the threads.
    monkeypatch.setattr("negmerge.merging.by_layer.CHUNK", 777)
    merge_recipe(tmp_path / "out.recipe.yaml", tmp_path / "again.safetensors", workers=3)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["merge", str(tmp_path / "out.recipe.yaml"), "-o", str(tmp_path / "folder")])
    assert stop.value.code == 0 and "projected  λ = 5, on 40 rows: rows 2" in capsys.readouterr().out
    assert "`uniform` was stripped of what acts on 40 rows" in (tmp_path / "folder" / "README.md").read_text()


def test_a_projection_of_the_whole_recipe_is_that_of_the_sum(pool, tmp_path):
    base, members, file = pool
    others = other_pool(base, tmp_path)
    terms = [{"members": members, "method": "uniform"}, {"members": others, "method": "uniform", "alpha": 0.5}]
    merge_recipe({"base": base, "terms": terms, "project": {"moments": file}}, tmp_path / "out.safetensors")
    merge_vector(base, members, tmp_path / "v.safetensors", method="uniform")
    merge_vector(base, others, tmp_path / "w.safetensors", method="uniform")
    v, w = load_file(tmp_path / "v.safetensors"), load_file(tmp_path / "w.safetensors")
    save_file({name: v[name] + 0.5 * w[name] for name in v}, tmp_path / "sum.safetensors")
    with Moments(file) as moments:
        project_vector(Projection(moments, 10.0), tmp_path / "sum.safetensors", tmp_path / "p.safetensors")
    start, out, total = (load_file(tmp_path / f"{name}.safetensors") for name in ("base", "out", "p"))
    for name in total:
        torch.testing.assert_close(out[name], start[name] - total[name], rtol=1e-4, atol=1e-5)


def test_mistakes_in_the_projection_of_a_recipe_are_named_by_their_place(pool, tmp_path):
    base, members, file = pool
    good = {"moments": file}
    cases = (
        ({"terms": [{"members": members, "project": {"strength": -1}}]}, "term 1: project: moments is missing"),
        ({"terms": [{"members": members, "project": {"moments": file, "strength": -1}}]}, "strength must be"),
        ({"terms": [{"members": members, "project": {"moment": file}}]}, "does not take 'moment'"),
        ({"terms": [{"members": members, "project": "yes"}]}, "term 1: project must be"),
        ({"terms": [{"members": members}], "project": {"moments": 3}}, "project: moments must be"),
        ({"terms": [{"members": members, "project": good}], "project": good}, "stands here and in the recipe"),
        ({"terms": [{"members": members, "project": {"moments": base}}]}, "is no moments file"),
    )
    for content, said in cases:
        with pytest.raises(InputError, match=said):
            merge_recipe({"base": base, **content}, tmp_path / "out.safetensors")
        assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_with_biases_needs_one_rank_more(tmp_path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=2, target_modules=["c_fc"], fan_in_fan_out=True, bias="lora_only")
    tuned = peft.get_peft_model(transformers.GPT2LMHeadModel(config), settings)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name or (parameter.requires_grad and "bias" in name):
            nn.init.normal_(parameter)
    tuned.save_pretrained(tmp_path / "adapter")
    sets = [MomentRows(lambda s=seed: ids(s).split(4), 20, f"rows {seed}") for seed in (1, 2)]
    write_moments(tmp_path / "moments", model, *sets, lambda own, batch: own(input_ids=batch), ids(1)[:1], {})
    errors = []
    for rank in (2, 3):
        with Moments(tmp_path / "moments") as moments:
            change = Projection(moments, 20.0)
            out = tmp_path / f"out{rank}"
            errors.append(
                merge_as_adapter(tmp_path / "base", [tmp_path / "adapter"], out, rank, projection=change).error
            )
    assert errors[0] > 1e-3
    assert errors[1] < 1e-5
