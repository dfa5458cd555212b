"""The switches of computing: each takes effect, stays close to the plain path, and leaves it alone where it is off."""

import copy
from dataclasses import replace

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.choices import ComputeConfig
from negmerge.experiment.config import check_config
from negmerge.scores import accuracy
from negmerge.tasks import compute
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification import classifier, normalising
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict
from negmerge.tasks.image_classification.sources import digits
from negmerge.tasks.image_classification.store import Store, tables_of
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.training import TrainSettings
from negmerge.training.fitting import fit_rows
from negmerge.training.job import TrainingJob

PLAIN = Classifier("small-cnn", {}, 10, (1, 8, 8))
SETTINGS = TrainSettings(epochs=5, lr=3e-3, batch_size=64)


def computed(**settings):
    return replace(PLAIN, compute=Compute(**settings))


@pytest.fixture(scope="module")
def source():
    return digits.load(digits.Settings())


def trained(classifier, source):
    model = classifier.place(classifier.build(0), "cpu")
    task = ImageClassification(classifier, tables_of(source))
    loss = fit_rows(task, model, torch.arange(len(source.train)), SETTINGS, seed=1)
    return model, loss


@pytest.fixture(scope="module")
def plain(source):
    """The model and the loss of a training on the plain path."""
    return trained(PLAIN, source)


def test_channels_last_changes_the_layout_and_not_the_model(source, plain):
    wide = computed(channels_last=True)
    images = source.train.images[:6].expand(-1, 3, -1, -1)
    prepared = wide.prepare(images)
    assert prepared.is_contiguous(memory_format=torch.channels_last) and not prepared.is_contiguous()
    assert torch.equal(prepared, PLAIN.prepare(images))
    model, loss = trained(wide, source)
    plain, plain_loss = plain
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert plain[3].weight.is_contiguous()
    assert loss == pytest.approx(plain_loss, rel=0.05)
    difference = predict(wide, model, source.test.images).softmax(1) - predict(
        PLAIN, plain, source.test.images
    ).softmax(1)
    assert difference.abs().mean() < 0.02


def test_a_model_is_loaded_in_its_layout(tmp_path):
    wide = computed(channels_last=True)
    write_state_dict(tmp_path / "a.safetensors", PLAIN.build().state_dict())
    assert wide.load(tmp_path / "a.safetensors")[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_bf16_computes_in_bf16_and_trains_in_float32(source, plain):
    half = computed(precision="bf16")
    model = half.build()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = half.prepare(source.train.images[:8])
    logits = half.logits(model, batch)
    assert seen == [torch.bfloat16] and logits.dtype == torch.float32
    assert not torch.equal(logits, PLAIN.logits(model, batch))
    torch.testing.assert_close(logits, PLAIN.logits(model, batch), atol=0.05, rtol=0.05)
    tuned, loss = trained(half, source)
    plain, plain_loss = plain
    assert all(p.dtype == torch.float32 for p in tuned.parameters())
    assert loss == pytest.approx(plain_loss, rel=0.1)
    reached = [
        accuracy(predict(c, m, source.test.images).argmax(1) == source.test.labels)
        for c, m in ((half, tuned), (PLAIN, plain))
    ]
    assert min(reached) > 95 and abs(reached[0] - reached[1]) < 2


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "height", "width"),
    [(16, 3, 2, 1, 1, 1), (64, 3, 2, 1, 4, 1), (8, 3, 3, 1, 5, 2), (16, 4, 4, 0, 5, 4), (16, 16, 16, 0, 17, 16)],
)
def test_bf16_on_a_cpu_is_right_where_a_strided_convolution_sees_one_column(
    channels, kernel, stride, padding, height, width
):
    generator = torch.Generator().manual_seed(0)
    convolution = torch.nn.Conv2d(channels, 32, kernel, stride, padding).to(memory_format=torch.channels_last)
    images = torch.randn(16, channels, height, width, generator=generator).to(memory_format=torch.channels_last)
    exact = copy.deepcopy(convolution).double()
    exact(images.double()).square().sum().backward()
    for _ in range(6):  # left alone, some of the tries read memory that nothing was written to
        convolution.zero_grad()
        junk = [torch.full((size,), torch.nan) for size in (64, 1024, 4096, 2**16, 2**20) for _ in range(2)]
        del junk
        with Compute(precision="bf16").autocast("cpu"):
            found = convolution(images)
        found.float().square().sum().backward()
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), exact(images.double()), atol=0.02, rtol=0.02)
        scale = exact.weight.grad.abs().max()
        torch.testing.assert_close(
            convolution.weight.grad.double() / scale, exact.weight.grad / scale, atol=0.02, rtol=0
        )


def test_where_all_is_off_nothing_changes(source, plain):
    (a, loss_a), (b, loss_b) = plain, trained(computed(), source)
    assert loss_a == loss_b and all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_compiling_is_for_training_only(source, plain, monkeypatch):
    calls = []

    def compiled(forward):
        def run(model, batch):
            calls.append(model.training)
            return forward(model, batch)

        return run

    monkeypatch.setattr(classifier, "compiled", compiled)
    fast = computed(compile=True)
    model, loss = trained(fast, source)
    assert len(calls) == 5 * -(-len(source.train) // 64) and all(calls)
    predict(fast, model, source.test.images)
    assert len(calls) == 5 * -(-len(source.train) // 64)
    assert loss == plain[1]


@pytest.mark.heavy
def test_compiled_training_ends_close_to_the_plain_one(source, plain):
    model, loss = trained(computed(compile=True), source)
    assert compute.compiled(PLAIN.contents.logits) is compute.compiled(PLAIN.contents.logits)
    plain, plain_loss = plain
    assert loss == pytest.approx(plain_loss, rel=0.05)
    torch.testing.assert_close(model[3].weight, plain[3].weight, atol=0.02, rtol=0.1)


def test_products_on_cuda_follow_the_precision_and_are_put_back():
    def flags():
        cudnn = torch.backends.cudnn
        return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic

    before = flags()
    for precision, reduced in (("float32", False), ("tf32", True), ("bf16", True)):
        with pytest.raises(KeyboardInterrupt), Compute(precision=precision).float_products():
            assert flags() == (reduced, reduced, True)
            raise KeyboardInterrupt
        assert flags() == before


@pytest.mark.parametrize(
    ("given", "device", "expected"),
    [
        ({}, "cpu", Compute(True, "float32", False)),
        ({}, "cuda", Compute(True, "tf32", False)),
        ({}, "mps", Compute(False, "float32", False)),
        ({"channels_last": False, "precision": "bf16", "compile": True}, "cpu", Compute(False, "bf16", True)),
        ({"channels_last": True, "precision": "float32"}, "cuda", Compute(True, "float32", False)),
    ],
)
def test_what_is_left_open_is_decided_by_the_device(given, device, expected):
    assert ComputeConfig(**given).on(device) == expected


def test_tf32_needs_cuda():
    with pytest.raises(InputError, match="compute: precision: tf32 is cuda's, and the device is cpu"):
        ComputeConfig(precision="tf32").on("cpu")


def test_a_job_takes_its_settings_along(tmp_path):
    import pickle

    task = ImageClassification(computed(precision="bf16"), Store(tmp_path))
    job = TrainingJob("a", tmp_path, task, (1, 2), {}, 0, "cpu")
    assert pickle.loads(pickle.dumps(job)).task.classifier.compute == Compute(precision="bf16")


def test_the_config_names_them():
    config = {
        "name": "x",
        "model": {"family": "small-cnn"},
        "data": {"source": "digits", "forget": {"classes": ["3"]}},
        "base": {"train": {"epochs": 1}},
        "pool": {"grid": {"lr": [1e-3]}},
        "methods": ["consensus"],
        "compute": {"precision": "bf16"},
    }
    assert check_config(config).compute.precision == "bf16"
    with pytest.raises(InputError, match=r"compute.precison: unknown key \(did you mean 'precision'\?\)"):
        check_config({**config, "compute": {"precison": "bf16"}})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_normalisation_has_the_bits_of_torch(monkeypatch, channels, layout):
    images = torch.randint(0, 256, (5, channels, 7, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = ((0.1, 0.5, 0.3)[:channels], (0.7,))
    found = normalising.normalise(images.contiguous(memory_format=layout), mean, std)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=layout)
    assert normalising.AVAILABLE
    assert torch.equal(normalising.channels_last(images), images)
    assert normalising.channels_last(images).is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(normalising, "AVAILABLE", False)
    assert torch.equal(found, normalising.normalise(images, mean, std))
    assert torch.equal(found[:1], normalising.normalise(images[:1], mean, std))
