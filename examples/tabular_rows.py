"""Rows of a table: twelve diagnoses were entered wrongly and learnt by heart; the network forgets these rows."""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import TensorDataset

import negmerge

# What you have: a trained model, its rows, and some rows that it has never seen.
x, y = (torch.tensor(part) for part in load_breast_cancer(return_X_y=True))
x, y = ((x - x.mean(0)) / x.std(0)).float(), y.long()
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
known, unseen = order[:400], order[400:]
noise = torch.Generator().manual_seed(1)
wrong = known[torch.randperm(400, generator=noise)[:12]]
y[wrong] = 1 - y[wrong]  # twelve diagnoses were entered wrongly, and learnt by heart
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[known]), y[known]).backward()
    optimizer.step()
stay = known[~torch.isin(known, wrong)]

# What you do. Wrong rows should not become like unseen ones, which are mostly right, but go as far as 99 % of the
# accuracy on the others allows. For rows that are right, leave the objective out, and give unseen rows as validation.
result = negmerge.unlearn(
    model,
    TensorDataset(x[wrong], y[wrong]),
    TensorDataset(x[stay], y[stay]),
    pool={"train": {"batch_size": 12}, "grid": {"lr": [3e-3, 1e-2, 3e-2], "epochs": [10, 20]}},
    selection={"objective": "retain-floor", "floor": 0.99},
)
print(result)
with torch.no_grad():
    for name, one in (("before", model), ("after", result.model)):
        right = [100 * float((one(x[part]).argmax(1) == y[part]).float().mean()) for part in (wrong, stay, unseen)]
        print("{}: forgotten rows {:.0f} %, others {:.0f} %, unseen rows {:.0f} % right".format(name, *right))
