"""Labels of −100 and labels of every token, in `unlearn`: what counts, and what is left out."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from negmerge import unlearn
from negmerge.errors import InputError
from negmerge.tasks.user.batches import Loading, forward_batch, loss_of_batch
from negmerge.tasks.user.task import UserClassifier

POOL = {"train": {"batch_size": 8}, "grid": {"lr": [1e-2, 3e-2], "epochs": [2]}}
GENERATOR = torch.Generator().manual_seed(0)
WORDS = torch.randint(0, 5, (40, 6), generator=GENERATOR)
LABELS = (WORDS * 3 + 1) % 5  # what each token is answered with
PADDED = LABELS.masked_fill(torch.rand(LABELS.shape, generator=GENERATOR) < 0.3, -100)


class Tagger(nn.Module):
    """A label for each token; logits [b, L, 5]."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, words):
        return self.table(words)


class NextToken(nn.Module):
    """Outputs as those of causal language models: the loss is that of the next token."""

    def __init__(self, shift=1, factor=1.0):
        super().__init__()
        self.table, self.shift, self.factor = nn.Embedding(5, 5), shift, factor

    def forward(self, words, labels):
        logits = self.table(words)
        end = logits.shape[1] - self.shift
        loss = functional.cross_entropy(logits[:, :end].flatten(0, 1), labels[:, self.shift :].flatten())
        return type("Outputs", (), {"logits": logits, "loss": self.factor * loss})()


class Mapped(torch.utils.data.Dataset):
    def __init__(self, words, labels):
        self.rows = list(zip(words, labels, strict=True))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        words, labels = self.rows[row]
        return {"words": words, "labels": labels}


def fitted(model, loss):
    torch.manual_seed(0)
    nn.init.normal_(model.table.weight)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model.eval()


def task_of(model, *tensors, **more):
    data = {"forget": TensorDataset(*tensors)}
    return UserClassifier(model, data, forward_batch, loss_of_batch, Loading(None, {}), classes=5, **more)


def test_the_loss_is_the_mean_over_real_labels():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([[1, -100, 2], [-100, 4, -100]])
    by_hand = [-logits[i, j].log_softmax(0)[labels[i, j]] for i, j in ((0, 0), (0, 2), (1, 1))]
    assert torch.allclose(loss_of_batch(logits, (None, labels)), sum(by_hand) / 3)
    rows = TensorDataset(torch.arange(2), labels)
    task = UserClassifier(
        nn.Linear(1, 1), {"forget": rows}, lambda model, batch: logits[batch[0]], loss_of_batch, Loading(None, {}),
        classes=5,
    )  # fmt: skip
    losses = task.losses(task.model, task.batch(torch.arange(2), "cpu"))
    assert torch.allclose(losses, torch.stack([(by_hand[0] + by_hand[1]) / 2, by_hand[2]]))


def test_a_batch_without_a_real_label_changes_nothing():
    logits = torch.randn(2, 5, requires_grad=True)
    loss = loss_of_batch(logits, (None, torch.tensor([-100, -100])))
    loss.backward()
    assert loss == 0.0 and not logits.grad.any()


def test_columns_leave_out_ignored_labels_and_rows():
    model = fitted(Tagger(), lambda model: functional.cross_entropy(model(WORDS).flatten(0, 1), LABELS.flatten()))
    labels = PADDED.clone()
    labels[3] = -100
    task = task_of(model, WORDS, labels)
    found = task.observe(model, {"forget": torch.arange(40)}, {"forget": ("correct", "loss")})["forget"]
    real = labels != -100
    right = model(WORDS).argmax(-1)[real] == labels[real]
    assert torch.equal(found["correct"], right)
    each = functional.cross_entropy(model(WORDS).double().flatten(0, 1), labels.flatten(), reduction="none")
    kept = [row for row in range(40) if real[row].any()]
    assert 3 not in kept and len(found["loss"]) == len(kept)
    means = [each.view(40, 6)[row][real[row]].mean() for row in kept]
    assert torch.allclose(found["loss"], torch.stack(means))
    other = task.relabel((WORDS, labels), torch.full_like(labels, 2))[1]
    assert torch.equal(other == -100, labels == -100) and (other[real] == 2).all()


def test_labels_of_every_token_are_unlearned():
    data = [TensorDataset(WORDS[WORDS[:, 0] == 0], PADDED[WORDS[:, 0] == 0])]
    data.append(TensorDataset(WORDS[WORDS[:, 0] != 0], PADDED[WORDS[:, 0] != 0]))
    model = fitted(Tagger(), lambda model: functional.cross_entropy(model(WORDS).flatten(0, 1), LABELS.flatten()))
    done = unlearn(model, *data, pool=POOL)
    start = next(point for point in done.selection.curve if point.alpha == 0.0)
    for name, one in zip(("forget", "retain"), data, strict=True):
        words, labels = one.tensors
        real = labels != -100
        right = model(words).argmax(-1)[real] == labels[real]
        assert start.scores[name] == pytest.approx(100.0 * float(right.double().mean()))


def test_rows_without_a_label_count_nowhere():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    some = y.clone()
    some[::3] = -100
    done = unlearn(model, TensorDataset(x, some), TensorDataset(x, some), pool=POOL)
    start = next(point for point in done.selection.curve if point.alpha == 0.0)
    right = (model(x).argmax(1) == y)[some != -100]
    assert start.scores["retain"] == start.scores["forget"] == pytest.approx(100.0 * float(right.double().mean()))


def test_models_of_the_next_token_are_scored_at_the_next_token():
    model = fitted(NextToken(), lambda model: model(WORDS, PADDED).loss)
    done = unlearn(model, Mapped(WORDS[:10], PADDED[:10]), Mapped(WORDS[10:], PADDED[10:]), pool=POOL)
    start = next(point for point in done.selection.curve if point.alpha == 0.0)
    answers, labels = model(WORDS, PADDED).logits[:10, :-1].argmax(-1), PADDED[:10, 1:]
    right = (answers == labels)[labels != -100]
    assert start.scores["forget"] == pytest.approx(100.0 * float(right.double().mean()))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"forget": torch.full_like(PADDED, -100)}, "every label of the forget set is -100, which is left out"),
        ({"retain": torch.full_like(PADDED, -100)}, "every label of the retain set is -100, which is left out"),
        ({"forget": PADDED.masked_fill(PADDED == 1, -1)}, r"labels \[32, 6\] from -1 to 4 do not fit logits"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_before_training(sets, message):
    labels = {"forget": PADDED, "retain": PADDED, **sets}
    with pytest.raises(InputError, match=message):
        unlearn(Tagger(), *(TensorDataset(WORDS, one) for one in labels.values()), pool=POOL)


def test_a_loss_of_other_places_is_refused():
    data = Mapped(WORDS, PADDED)
    for model in (NextToken(shift=2), NextToken(factor=2.0)):
        with pytest.raises(InputError, match=r"neither in place .* nor at the next token .*; give evaluate\(model\)"):
            unlearn(model, data, data, pool=POOL)
