"""Tied weights: one tensor by several names, in files of every kind, against what transformers loads."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts, merge_vector
from negmerge.merging.inspecting import inspect_checkpoints

transformers = pytest.importorskip("transformers")

TINY = {"vocab_size": 48, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
MODELS = {
    "llama": (lambda: transformers.LlamaConfig(**TINY, tie_word_embeddings=True), "LlamaForCausalLM"),
    "gpt2": (lambda: transformers.GPT2Config(vocab_size=48, n_embd=8, n_layer=1, n_head=2), "GPT2LMHeadModel"),
    "bert": (lambda: transformers.BertConfig(**TINY), "BertForMaskedLM"),
    "t5": (
        lambda: transformers.T5Config(vocab_size=48, d_model=8, d_ff=16, num_layers=1, num_heads=2, d_kv=4),
        "T5ForConditionalGeneration",
    ),
    "bart": (
        lambda: transformers.BartConfig(
            vocab_size=48, d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
            encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=16,
        ),
        "BartForConditionalGeneration",
    ),
}  # fmt: skip


def made(family, seed):
    torch.manual_seed(seed)
    config, name = MODELS[family]
    return getattr(transformers, name)(config())


def pool_of(family):
    """A tied model, and two members that drifted from it."""
    base = made(family, 0)
    members = [made(family, 0) for _ in "ab"]
    for i, member in enumerate(members):
        g = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for parameter in member.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return base, members


def saved(model, folder, form):
    """Save a model as transformers does (tied tensors once), as clones of each name, or as a `.bin` that shares."""
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    if form == "clones":
        save_file({k: v.clone().contiguous() for k, v in model.state_dict().items()}, file, {"format": "pt"})
    if form == "bin":
        file.unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


FORMS = ("once", "clones", "bin")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MODELS)
def test_every_way_to_store_tied_weights_is_one_tensor(family, tmp_path):
    base, members = pool_of(family)
    bases = {form: saved(base, tmp_path / f"base-{form}", form) for form in FORMS}
    pools = {form: [saved(m, tmp_path / f"{form}{i}", form) for i, m in enumerate(members)] for form in FORMS}
    pools["mixed"] = [pools["clones"][0], pools["once"][1]]
    mean = {k: (a + members[1].state_dict()[k]) / 2 for k, a in members[0].state_dict().items()}
    for form, place in bases.items():
        for kind, paths in pools.items():
            out = tmp_path / f"out-{form}-{kind}"
            report = merge_checkpoints(place, paths, out, method="uniform", add=True)
            assert report.warnings == ()
            once = {value.data_ptr(): value.numel() for value in base.state_dict().values()}
            assert report.merged_elements == report.elements == sum(once.values())
            loaded = getattr(transformers, MODELS[family][1]).from_pretrained(out)
            for name, value in loaded.state_dict().items():
                torch.testing.assert_close(value, mean[name], msg=lambda text, n=name: f"{n}: {text}")
            heads, embeddings = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
            assert heads.data_ptr() == embeddings.data_ptr()


@pytest.mark.filterwarnings("ignore")
def test_copies_stay_equal_under_draws_patterns_and_settings_of_one_name(tmp_path):
    base, members = pool_of("llama")
    place = saved(base, tmp_path / "base", "clones")
    paths = [saved(member, tmp_path / f"m{i}", "clones") for i, member in enumerate(members)]
    requests = [
        {"method": "dare", "settings": {"density": 0.5}, "seed": 3},
        {"include": ["embed_tokens"]},
        {"include": ["lm_head"]},
        {"exclude": ["lm_head"]},
        {"method": "ties", "settings": {"density": 1.0, "density[embed_tokens]": 0.1}},
    ]
    for i, request in enumerate(requests):
        merge_checkpoints(place, paths, tmp_path / f"o{i}.safetensors", **request)
        merge_vector(place, paths, tmp_path / f"tau{i}.safetensors", **request)
        for file in (f"o{i}.safetensors", f"tau{i}.safetensors"):
            found = load_file(tmp_path / file)
            names = [name for name in ("lm_head.weight", "model.embed_tokens.weight") if name in found]
            assert len(names) == (0 if file.startswith("tau") and "exclude" in request else 2)
            assert not names or torch.equal(found[names[0]], found[names[1]])
    moved = load_file(tmp_path / "o2.safetensors")["model.embed_tokens.weight"]
    kept = load_file(tmp_path / "o3.safetensors")["model.embed_tokens.weight"]
    assert not torch.equal(moved, base.get_input_embeddings().weight)
    assert torch.equal(kept, base.get_input_embeddings().weight)


def untied_members(members, tmp_path):
    """The members with a head of their own, as untied fine-tuning saves them."""
    paths = []
    for i, member in enumerate(members):
        folder = saved(member, tmp_path / f"u{i}", "once")
        state = load_file(folder / "model.safetensors")
        g = torch.Generator().manual_seed(70 + i)
        state["lm_head.weight"] = member.get_input_embeddings().weight + torch.randn(48, 8, generator=g)
        save_file({k: v.detach().contiguous() for k, v in state.items()}, folder / "model.safetensors")
        paths.append(folder)
    return paths


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_members_that_untie_the_head_give_an_out_whose_config_says_so(form, tmp_path):
    base, members = pool_of("llama")
    place = saved(base, tmp_path / "base", form)
    one_tied, one_untied = saved(members[0], tmp_path / "tied", "once"), untied_members(members, tmp_path)[1]
    report = merge_checkpoints(place, [one_tied, one_untied], tmp_path / "out", method="uniform", add=True)
    assert len(report.warnings) == 1
    assert "u1 unties lm_head.weight from model.embed_tokens.weight (holds different tensors)" in report.warnings[0]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert json.loads((place / "config.json").read_text())["tie_word_embeddings"] is True
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    tied, untied = load_file(one_tied / "model.safetensors"), load_file(one_untied / "model.safetensors")
    embedding = (tied["model.embed_tokens.weight"] + untied["model.embed_tokens.weight"]) / 2
    head = (tied["model.embed_tokens.weight"] + untied["lm_head.weight"]) / 2  # the tied member's head is its embedding
    torch.testing.assert_close(loaded.model.embed_tokens.weight.data, embedding)
    torch.testing.assert_close(loaded.lm_head.weight.data, head)
    assert inspect_checkpoints(place, [one_tied, one_untied]).warnings[0] == report.warnings[0]


@pytest.mark.filterwarnings("ignore")
def test_a_tie_that_no_config_can_undo_is_refused_and_exclude_leaves_it_out(tmp_path):
    base, members = pool_of("llama")
    place = saved(base, tmp_path / "base", "bin")
    paths = untied_members(members, tmp_path)
    with pytest.raises(InputError, match=r"(?s)no config.json beside the base can say") as caught:
        merge_checkpoints(place / "pytorch_model.bin", paths, tmp_path / "o.safetensors")
    assert r"--exclude '^model\.embed_tokens\.weight$' leaves them out" in str(caught.value)
    merge_checkpoints(place / "pytorch_model.bin", paths, tmp_path / "o.safetensors", exclude=["lm_head"])
    found = load_file(tmp_path / "o.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert torch.equal(found["lm_head.weight"], base.lm_head.weight)


@pytest.mark.filterwarnings("ignore")
def test_models_that_scale_by_their_tie_and_embeddings_that_part_are_refused(tmp_path):
    base, members = pool_of("t5")
    once, clones = (saved(base, tmp_path / form, form) for form in ("once", "clones"))
    paths = [saved(member, tmp_path / f"m{i}", "clones") for i, member in enumerate(members)]
    state = load_file(paths[1] / "model.safetensors")
    for place, name, message in (
        (once, "lm_head.weight", "type t5 would stop scaling"),
        (clones, "lm_head.weight", "type t5 would stop scaling"),
        (once, "encoder.embed_tokens.weight", "encoder.embed_tokens.weight is not in the base"),
        (clones, "encoder.embed_tokens.weight", "transformers ties embeddings whatever its config says"),
    ):
        save_file({**state, name: state[name] + 1}, paths[1] / "model.safetensors")
        with pytest.raises(InputError, match=message):
            merge_checkpoints(place, paths, tmp_path / "out")


def test_an_untied_model_stays_untied(tmp_path):
    """Head and embedding equal at the start, and a config that says that they are two."""
    config = transformers.LlamaConfig(**TINY, tie_word_embeddings=False)
    base = transformers.LlamaForCausalLM(config)
    base.lm_head.weight.data.copy_(base.model.embed_tokens.weight.data)
    place = saved(base, tmp_path / "base", "once")
    state = load_file(place / "model.safetensors")
    assert "lm_head.weight" in state
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"m{i}.safetensors")
        save_file({k: v + torch.randn(v.shape) for k, v in state.items()}, paths[-1])
    report = merge_checkpoints(place, paths, tmp_path / "out", exclude=["embed_tokens"])
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert report.warnings == ()
    assert torch.equal(found["model.embed_tokens.weight"], state["model.embed_tokens.weight"])
    assert not torch.equal(found["lm_head.weight"], state["lm_head.weight"])


MATRIX = torch.arange(12.0).reshape(3, 4)


def drifted(state, seed):
    g = torch.Generator().manual_seed(seed)
    values = {}  # one drift for tensors that are equal
    return {
        k: v + values.setdefault((v.shape, float(v.sum())), torch.randn(v.shape, generator=g)) for k, v in state.items()
    }


def test_equal_matrices_of_any_name_are_one_where_all_members_agree():
    base = {"a": MATRIX, "b": MATRIX.clone(), "w": torch.ones(2, 2)}
    both, one = drifted(base, 0), drifted(base, 1)
    del one["b"]
    found = merge_state_dicts(base, [both, one], method="uniform", add=True)
    assert torch.equal(found["a"], found["b"])
    torch.testing.assert_close(found["a"], (both["a"] + one["a"]) / 2)
    more = {**drifted({"a": MATRIX, "w": base["w"]}, 2)}
    found = merge_state_dicts({"a": MATRIX, "w": base["w"]}, [{**more, "copy": more["a"].clone()}], method="uniform")
    assert set(found) == {"a", "w"}
    apart = {**both, "b": both["b"] + 1}
    with pytest.raises(InputError, match=r"members\[1\]: b is missing"):
        merge_state_dicts(base, [apart, one])


@pytest.mark.parametrize("value", [torch.arange(4.0), torch.zeros(3, 4), torch.ones(3, 4)])
def test_equal_biases_norms_and_constants_are_no_tie(value):
    base = {"a": value, "b": value.clone(), "w": MATRIX}
    member = drifted(base, 0)
    whole = merge_state_dicts(base, [member], method="uniform", exclude=["^b"])
    assert torch.equal(whole["b"], base["b"]) and not torch.equal(whole["a"], base["a"])
    del member["b"]
    with pytest.raises(InputError, match="b is missing"):
        merge_state_dicts(base, [member])
    with pytest.raises(InputError, match="c is not in the base"):
        merge_state_dicts(base, [{**base, "w": MATRIX + 1, "c": value.clone()}])
