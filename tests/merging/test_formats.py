"""Merging over formats: shards in and out, adapters, tied weights, and folders that transformers loads."""

import json

import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.execution import compiling
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.folder import written_folder
from negmerge.merging.output.verifying import verify_model
from negmerge.merging.output.weights import parse_size
from pools import drift, make_state


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


def test_shards_out_and_in_again(pool, tmp_path):
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "one.safetensors")
    merge_checkpoints(base, members, tmp_path / "many", max_shard_size="100")
    files = sorted(p.name for p in (tmp_path / "many").iterdir())
    shards = [name for name in files if name.endswith(".safetensors")]
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert set(files) - set(shards) == {"README.md", "model.safetensors.index.json"}
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(v.numel() * v.element_size() for v in make_state(0).values())
    same(read_state_dict(tmp_path / "many"), load_file(tmp_path / "one.safetensors"))
    assert verify_model(tmp_path / "many").count == 2 * len(shards) + 2
    merge_checkpoints(tmp_path / "many", members, tmp_path / "again")
    first = [(tmp_path / "many" / name).read_bytes() for name in shards]
    merge_checkpoints(base, members, tmp_path / "many", max_shard_size="100", overwrite=True, workers=1)
    assert [(tmp_path / "many" / name).read_bytes() for name in shards] == first
    data = bytearray(first[1])
    data[-1] ^= 1
    (tmp_path / "many" / shards[1]).write_bytes(data)
    with pytest.raises(InputError, match="it was changed"):
        verify_model(tmp_path / "many")


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5 kb", 1500), ("2MiB", 2**21), ("77", 77), (" 1TB ", 10**12)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "5 XB", "nan", "1e3"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="is no size; write for example 5GB"):
        parse_size(text)


def test_one_file_has_no_shards(pool, tmp_path):
    with pytest.raises(InputError, match="is one file, which has no shards"):
        merge_checkpoints(*pool, tmp_path / "o.safetensors", max_shard_size="5GB")


def test_two_writers_of_one_folder(pool, tmp_path):
    base, members = pool
    with (
        written_folder(tmp_path / "out", None, False) as folder,
        pytest.raises(NegmergeError, match="is being written by another process"),
    ):
        (folder / "mine").write_text("whole")
        merge_checkpoints(base, members, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "whole"


def test_a_file_that_appeared_meanwhile_is_left_alone(pool, tmp_path):
    base, members = pool

    def other_process(_event):
        (tmp_path / "o.safetensors").write_bytes(b"theirs")

    with pytest.raises(InputError, match="exists by now: another process wrote it"):
        merge_checkpoints(base, members, tmp_path / "o.safetensors", on_event=other_process)
    assert (tmp_path / "o.safetensors").read_bytes() == b"theirs"
    assert [p.name for p in tmp_path.glob(".*")] == []


def save_adapter(folder, tensors, **config):
    folder.mkdir()
    write_state_dict(folder / "adapter_model.safetensors", tensors)
    content = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(content))


def adapters(tmp_path, base, dtype=torch.bfloat16, count=3):
    write_state_dict(tmp_path / "base.safetensors", {name: value.to(dtype) for name, value in base.items()})
    paths, changes = [], []
    for i in range(count):
        rank = 2 + i
        g = torch.Generator().manual_seed(i)
        a, b = 1e-4 * torch.rand(rank, 40, generator=g), torch.rand(30, rank, generator=g)
        keys = ("base_model.model.layer.lora_A.weight", "base_model.model.layer.lora_B.weight")
        save_adapter(tmp_path / f"a{i}", dict(zip(keys, (a, b), strict=True)), base_model_name_or_path="org/base")
        paths.append(tmp_path / f"a{i}")
        changes.append(8 / rank * (b @ a))
    return tmp_path / "base.safetensors", paths, changes


def test_adapters_merge_by_their_effective_change(tmp_path):
    base = {"layer.weight": torch.full((30, 40), 100.0), "other": torch.ones(5)}
    place, paths, changes = adapters(tmp_path, base)
    # Adding each change to the bf16 base first would round all of them away.
    assert all(torch.equal((base["layer.weight"] + c).bfloat16(), base["layer.weight"].bfloat16()) for c in changes)
    report = merge_checkpoints(place, paths, tmp_path / "o.safetensors", alpha=2000.0)
    assert report.merged_elements == 1200 and report.kept == 1200 and report.elements == 1205
    expected = (100.0 - 2000.0 * torch.stack(changes).mean(0)).bfloat16()
    torch.testing.assert_close(load_file(tmp_path / "o.safetensors")["layer.weight"], expected)
    assert report.warnings and "a0 says that it was trained on org/base" in report.warnings[0]


def test_an_adapter_beside_a_full_member(tmp_path):
    base = {"layer.weight": torch.zeros(30, 40), "other": torch.ones(5)}
    place, paths, changes = adapters(tmp_path, base, torch.float32, count=1)
    write_state_dict(tmp_path / "full.safetensors", {"layer.weight": torch.ones(30, 40), "other": torch.zeros(5)})
    report = merge_checkpoints(place, [*paths, tmp_path / "full.safetensors"], tmp_path / "o.safetensors")
    assert report.merged_elements == 1205 and report.kept == 1200
    torch.testing.assert_close(load_file(tmp_path / "o.safetensors")["layer.weight"], -(changes[0] + 1) / 2)
    with pytest.raises(InputError, match="is an adapter, which is no model of its own"):
        merge_checkpoints(paths[0], [place], tmp_path / "p.safetensors")


def test_adapter_bytes_do_not_depend_on_workers(tmp_path, monkeypatch):
    from negmerge.merging.passes import plain

    place, paths, _ = adapters(tmp_path, {"layer.weight": torch.randn(30, 40)})
    merge_checkpoints(place, paths, tmp_path / "a.safetensors")
    monkeypatch.setattr(plain, "CHUNK", 77)
    merge_checkpoints(place, paths, tmp_path / "b.safetensors", workers=3)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_name_tied_in_the_base_may_be_missing_in_a_member(tmp_path):
    weight = torch.randn(6, 4)
    torch.save({"embed": weight, "head": weight, "b": torch.ones(2)}, tmp_path / "base.pt")
    members = []
    for i in range(2):
        members.append(tmp_path / f"{i}.safetensors")
        write_state_dict(members[-1], {"embed": weight + 1 + i, "b": torch.zeros(2)})
    merge_checkpoints(tmp_path / "base.pt", members, tmp_path / "o.safetensors")
    merged = load_file(tmp_path / "o.safetensors")
    assert torch.equal(merged["head"], merged["embed"])
    torch.testing.assert_close(merged["embed"], weight - 1.5)


def test_a_folder_and_the_file_in_it_are_the_same_member(pool, tmp_path):
    base, members = pool
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(members[0].read_bytes())
    with pytest.raises(InputError, match="are the same weights; leave one of them out"):
        merge_checkpoints(
            base, [tmp_path / "m", tmp_path / "m" / "model.safetensors"], tmp_path / "o.safetensors", hash_inputs=False
        )


def tiny(kind):
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind.startswith("llama"):
        config = transformers.LlamaConfig(vocab_size=50, tie_word_embeddings=kind == "llama-tied", **size)
        return transformers.LlamaForCausalLM(config)
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
    if kind == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=8, patch_size=4, **size))
    vision = {**size, "image_size": 8, "patch_size": 4}
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config={**size, "vocab_size": 50}, vision_config=vision, projection_dim=8)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama-tied", "llama-untied", "gpt2", "vit", "clip"])
def test_transformers_loads_what_was_merged(tmp_path, kind):
    torch.manual_seed(0)
    model = tiny(kind)
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    for i in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / f"m{i}", max_shard_size="20KB" if i else "1GB")
    report = merge_checkpoints(
        tmp_path / "base", [tmp_path / "m0", tmp_path / "m1"], tmp_path / "out", max_shard_size="30KB"
    )
    assert 0 < report.kept < report.merged_elements
    assert (tmp_path / "out" / "tokenizer_config.json").exists() and (tmp_path / "out" / "config.json").exists()
    loaded, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found, written = loaded.state_dict(), read_state_dict(tmp_path / "out")
    assert all(torch.equal(found[name], value) for name, value in written.items() if name in found)
    base = type(model).from_pretrained(tmp_path / "base").state_dict()
    assert any(not torch.equal(found[name], base[name]) for name in base)


def test_the_compiled_way_reads_shards(pool, tmp_path, monkeypatch):
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "m", max_shard_size="100")
    write_state_dict(tmp_path / "x.safetensors", drift(make_state(0), 9))
    merge_checkpoints(tmp_path / "m", [*members, tmp_path / "x.safetensors"], tmp_path / "a")
    monkeypatch.setattr(compiling, "AVAILABLE", False)
    merge_checkpoints(tmp_path / "m", [*members, tmp_path / "x.safetensors"], tmp_path / "b")
    same(read_state_dict(tmp_path / "a"), read_state_dict(tmp_path / "b"))
