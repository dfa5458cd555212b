"""The inputs of every kind of layer: its matrices times these are its outputs."""

import pytest
import torch
from torch import nn

from negmerge.projection import collecting
from negmerge.projection.collecting import collect, survey
from negmerge.projection.inputs import real_rows


def forward(model, batch):
    return model(*batch) if isinstance(batch, tuple) else model(batch)


CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), (2, 4, 7, 7)),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), (2, 4, 7, 7)),
    "uneven": (nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding=(0, 1)), (2, 4, 7, 6)),
    "same": (nn.Conv2d(4, 6, 3, dilation=2, padding="same"), (2, 4, 7, 7)),
    "reflecting": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 7)),
    "circular": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 7)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "one image": (nn.Conv2d(4, 6, 3), (4, 7, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
    "transposed, strided": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 5)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2), (2, 4, 5, 5)),
    "transposed, one dimension": (nn.ConvTranspose1d(4, 6, 4, stride=3, padding=2), (2, 4, 5)),
    "transposed, cut": (nn.ConvTranspose1d(4, 6, 2, padding=1), (2, 4, 5)),
}


@pytest.mark.parametrize("module, shape", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_its_matrices_times_its_unfolded_inputs(module, shape):
    torch.manual_seed(0)
    images = torch.randn(*shape)
    model = nn.Sequential(module)
    found = survey(model, forward, images)
    (layer,), (source,) = found.layers, found.sources.values()
    rows = source.slot.unfold(images)
    outputs = torch.einsum("goi,gni->ngo", layer.matrices(module.weight.detach()), rows)
    outputs = outputs.flatten(1) + module.bias.detach()
    wanted = module(images).detach()
    wanted = wanted if images.dim() == wanted.dim() == len(module.kernel_size) + 2 else wanted[None]
    torch.testing.assert_close(outputs, wanted.transpose(0, 1).flatten(1).T, rtol=1e-4, atol=1e-5)
    back = torch.empty_like(module.weight)
    layer.put(back, layer.matrices(module.weight.detach()))
    assert torch.equal(back, module.weight)


def test_moments_of_a_grouped_convolution_are_the_blocks_of_an_explicit_matrix():
    torch.manual_seed(0)
    grouped, images = nn.Conv2d(4, 6, 3, groups=2, bias=False), torch.randn(3, 4, 6, 6)
    whole = nn.functional.unfold(images, 3).transpose(1, 2).reshape(-1, 36).double()
    blocks = whole.T @ whole / len(whole)
    found = survey(nn.Sequential(grouped), forward, images)
    (moments,) = collect(nn.Sequential(grouped), found, list(found.sources), [images], forward).values()
    torch.testing.assert_close(moments, torch.stack([blocks[:18, :18], blocks[18:, 18:]]))


def test_layers_with_the_same_input_share_its_moments_and_ones_stand_for_biases():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 2), nn.Linear(3, 4, bias=False), nn.Linear(3, 2)

        def forward(self, x):
            return self.a(x).sum() + self.b(x).sum() + self.c(x + 1).sum()

    model, x = Heads(), torch.randn(5, 3)
    found = survey(model, forward, x)
    assert [layer.source for layer in found.layers] == ["a", "a", "c"]
    assert [layer.ones for layer in found.layers] == [True, True, True]
    moments = collect(model, found, ["a", "c"], [x], forward)
    torch.testing.assert_close(moments["a"][0, :3, :3], (x.T @ x / 5).double())
    torch.testing.assert_close(moments["a"][0, 3], torch.cat([x.mean(0), torch.ones(1)]).double())
    apart = survey(model, forward, x, share=False)
    assert [layer.source for layer in apart.layers] == ["a", "b", "c"]


@pytest.mark.parametrize("first", [True, False])
def test_attention_sees_its_three_inputs_and_what_its_heads_put_out(first):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(6, 2, batch_first=first).eval()
    q, k = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    model = nn.ModuleDict({"attn": attention})

    def run(model, batch):
        return model["attn"](batch[0], batch[1], value=batch[1])[0]

    found = survey(model, run, (q, k))
    assert [layer.name for layer in found.layers] == [
        "attn.in_proj_weight[0:6]",
        "attn.in_proj_weight[6:12]",
        "attn.in_proj_weight[12:18]",
        "attn.out_proj.weight",
    ]
    assert [layer.source for layer in found.layers] == ["attn:query", "attn:key", "attn:key", "attn:output"]
    moments = collect(model, found, ["attn:query", "attn:output"], [(q, k)], run)
    flat = q.reshape(-1, 6)
    torch.testing.assert_close(moments["attn:query"][0, :6, :6], (flat.T @ flat / 6).double())
    # Of what the heads put out, weight and bias make the output.
    heads = found.sources["attn:output"].slot.find(((q, k), {"value": k})).detach()
    torch.testing.assert_close(attention.out_proj(heads), run(model, (q, k)))
    rows = heads.reshape(-1, 6)
    torch.testing.assert_close(moments["attn:output"][0, :6, :6], (rows.T @ rows / 6).double())


def test_attention_between_inputs_of_other_widths_has_a_matrix_for_each():
    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True).eval()})
    batch = torch.randn(2, 3, 6), torch.randn(2, 4, 4), torch.randn(2, 4, 5)

    def run(own, given):
        return own["attn"](*given)[0]

    found = survey(model, run, batch)
    assert [(layer.weight[0], layer.bias) for layer in found.layers] == [
        ("attn.q_proj_weight", ()),
        ("attn.k_proj_weight", ()),
        ("attn.v_proj_weight", ()),
        ("attn.out_proj.weight", ("attn.out_proj.bias",)),
    ]
    moments = collect(model, found, list(found.sources), [batch], run)
    for part, inputs in zip(("query", "key", "value"), batch, strict=True):
        x = inputs.flatten(0, 1).double()
        torch.testing.assert_close(moments[f"attn:{part}"][0], x.T @ x / len(x))


def test_a_transformer_layer_of_torch_is_seen_whole_in_evaluation():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.inference_mode():
        found = survey(model, forward, torch.randn(2, 4, 8))
    assert {layer.weight[0] for layer in found.layers} == {
        "self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"
    }  # fmt: skip
    assert found.unseen == ()


def test_tokens_are_counted_and_padding_is_not_a_token():
    class Language(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            if tied:
                self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    ids = torch.tensor([[1, 2, 2], [3, 0, 0]])
    real = torch.tensor([[True, True, True], [True, False, False]])
    model = Language(tied=False)
    found = survey(model, forward, ids)
    moments = collect(model, found, list(found.sources), [ids], forward, lambda _: real)
    assert moments["embed"].tolist() == [0.0, 0.25, 0.5, 0.25, 0.0]
    seen = model.embed.weight.detach()[torch.tensor([1, 2, 2, 3])].double()
    torch.testing.assert_close(moments["head"][0], seen.T @ seen / 4)
    (tied,) = survey(Language(tied=True), forward, ids).layers
    assert (tied.kind, tied.weight) == ("tied-embedding", ("embed.weight", "head.weight"))
    assert (tied.source, tied.tokens, tied.columns) == ("head", "embed", 3)


def test_a_module_that_is_called_twice_adds_both_inputs_and_unseen_matrices_are_named():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.never = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)
            self.free = nn.Parameter(torch.ones(2, 2))
            self.rnn = nn.GRU(2, 2)
            self.special = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))

        def forward(self, x):
            return self.special(self.rnn(self.layer(self.layer(x)) @ self.free)[0])

    model, x = Twice(), torch.randn(4, 2)
    found = survey(model, forward, x)
    moments = collect(model, found, ["layer"], [x], forward)["layer"][0]
    y = model.layer(x).detach()
    torch.testing.assert_close(moments, ((x.T @ x + y.T @ y) / 8).double())
    assert [layer.name for layer in found.layers] == ["layer.weight"]
    assert found.unseen[0] == "free"
    assert "never.weight" in found.unseen
    assert "rnn.weight_ih_l0" in found.unseen
    assert any(name.startswith("special.parametrizations") for name in found.unseen)


def test_a_weight_of_two_layers_gets_the_moments_of_both():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    model[2].weight = model[0].weight
    x = torch.randn(6, 2)
    found = survey(model, forward, x)
    (layer,) = found.layers
    assert (layer.weight, layer.source) == (("0.weight", "2.weight"), "0")
    moments = collect(model, found, ["0"], [x], forward)["0"][0]
    y = model[:2](x).detach()
    torch.testing.assert_close(moments, ((x.T @ x + y.T @ y) / 12).double())


def test_conv1d_of_transformers_lies_the_other_way_round():
    transformers = pytest.importorskip("transformers.pytorch_utils")
    model = nn.Sequential(transformers.Conv1D(4, 3))
    x = torch.randn(5, 3)
    found = survey(model, forward, x)
    (layer,) = found.layers
    weight = model[0].weight.detach()
    torch.testing.assert_close(layer.matrices(weight)[0] @ x[0], (x @ weight)[0])


def test_real_rows_follow_the_mask_whichever_way_batches_lie():
    mask = torch.tensor([[True, False, True], [False, True, True]])
    values = torch.arange(6.0).reshape(2, 3, 1)
    rows = values.reshape(1, 6, 1)
    assert real_rows(rows, values.shape, mask).flatten().tolist() == [0, 2, 4, 5]
    turned = values.transpose(0, 1)
    assert real_rows(turned.reshape(1, 6, 1), turned.shape, mask).flatten().tolist() == [0, 4, 2, 5]
    assert real_rows(rows[:, :2], (2, 1), mask).shape == (1, 2, 1)


def test_moments_of_a_pass_in_half_precision_are_products_in_float32(monkeypatch):
    monkeypatch.setattr(collecting, "WIDE", 4)  # beyond it products are taken in float32, which autocast would round
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(8, 3)), torch.randn(50, 8)

    def in_half(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch)

    found = survey(model, in_half, inputs)
    (moments,) = collect(model, found, list(found.sources), [inputs], in_half).values()
    x = torch.cat([inputs, torch.ones(50, 1)], dim=1).double()
    torch.testing.assert_close(moments[0].double(), x.T @ x / 50, rtol=1e-5, atol=1e-6)


@pytest.mark.heavy(4)
def test_fused_experts_are_named_as_unseen_beside_layers_that_are_seen():
    transformers = pytest.importorskip("transformers")
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 3}
    config = transformers.MixtralConfig(vocab_size=12, hidden_size=16, intermediate_size=8, **shape)
    model = transformers.MixtralForCausalLM(config).eval()
    found = survey(model, lambda own, ids: own(input_ids=ids), torch.tensor([[1, 2, 3, 4]]))
    matrices = {name for name, value in model.named_parameters() if value.dim() > 1}
    experts = {name for name in matrices if ".experts." in name}
    seen = {name for layer in found.layers for name in layer.weight}
    assert experts and experts <= set(found.unseen)
    assert any("q_proj" in name for name in seen) and seen.isdisjoint(experts)
    assert seen | set(found.unseen) == matrices
