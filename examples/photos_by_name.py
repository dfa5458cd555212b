"""Twelve photos, named in a list, forgotten by a ResNet-18 of your own, from the command line.

negmerge unlearn resnet18.pt --family imagenet-resnet --forget gone.txt --retain photos -o out

A photo that looks like all others of its class is recognised whether the model ever saw it or not, and no unlearning
can change that. The twelve here were taken at night: nothing is to be seen on them, so that the model can only know
them by heart. Having forgotten them it has to guess, one of three.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional

from negmerge.tasks.image_classification.families import imagenet_resnet

# What you have: photos in a folder a class, a ResNet-18 that knows them, and the names of those that must go.
folder = Path(tempfile.mkdtemp())
draw = torch.Generator().manual_seed(0)
images, labels, names = [], [], []
for label, name in enumerate(("beach", "forest", "street")):
    (folder / "photos" / name).mkdir(parents=True)
    for i in range(20):
        pixels = torch.randint(0, 120, (32, 32, 3), generator=draw)
        night = i < 4
        if not night:
            pixels[10 * label : 10 * label + 10] += 100
        images.append(pixels.to(torch.uint8))
        labels.append(label)
        names.append(f"{name}/{'night' if night else 'day'}-{i:02}.png")
        Image.fromarray(images[-1].numpy()).save(folder / "photos" / names[-1])
settings = imagenet_resnet.Settings()  # torchvision's names of tensors: weights saved from its resnet18 fit as well
model = imagenet_resnet.build(settings, 3, (3, 32, 32))
x = imagenet_resnet.prepare(settings, torch.stack(images).permute(0, 3, 1, 2))
y = torch.tensor(labels)
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
for _ in range(25):
    for rows in torch.randperm(len(x), generator=draw).split(20):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
torch.save(model.state_dict(), folder / "resnet18.pt")
(folder / "gone.txt").write_text("\n".join(name for name in names if "night" in name))

# What you do.
words = ["unlearn", "resnet18.pt", "--family", "imagenet-resnet", "--forget", "gone.txt", "--retain", "photos"]
words += ["-o", "out", "--set", "projection=none"]  # a minute instead of three: here the plain merge is as good
print(f"negmerge {' '.join(words)}")
done = subprocess.run([sys.executable, "-m", "negmerge", *words], cwd=folder, capture_output=True, text=True)
print(done.stdout + done.stderr)
sys.exit(done.returncode)
