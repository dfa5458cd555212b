"""Your own module, your own data sets: make a network forget one kind of flower in about ten lines."""

import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import TensorDataset

import negmerge

# What you have: a trained model, the rows that must go, rows that must stay.
x, y = (torch.tensor(part) for part in load_iris(return_X_y=True))
x, y = ((x - x.mean(0)) / x.std(0)).float(), y.long()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.Adam(model.parameters(), 1e-2)
for _ in range(200):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
forget = TensorDataset(x[y == 0], y[y == 0])
retain = TensorDataset(x[y != 0], y[y != 0])

# What you do.
result = negmerge.unlearn(
    model,
    forget,
    retain,
    pool={"train": {"batch_size": 16}, "grid": {"lr": [1e-3, 3e-3, 1e-2], "epochs": [5, 10, 20]}},
    selection={"floor": 0.95},
)

assert result.selection is not None  # a method that trains chooses no α
before, after = result.selection.curve[0].scores, result.selection.scores
print(f"{len(result.members)} members agree on {100 * result.consensus:.0f} % of the weights; α = {result.alpha:g}")
print(f"forget accuracy {before['forget']:.0f} % → {after['forget']:.0f} %")
print(f"retain accuracy {before['retain']:.0f} % → {after['retain']:.0f} %")
# result.model is the unlearned module; `model` is as it was.
