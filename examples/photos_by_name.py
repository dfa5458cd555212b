"""Twelve photos, named in a list, forgotten by a ResNet-18 of your own, from the command line.

negmerge unlearn resnet18.pt --family imagenet-resnet --forget gone.txt --retain photos -o out
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
    for i in range(24):
        pixels = torch.randint(0, 120, (32, 32, 3), generator=draw)
        pixels[10 * label : 10 * label + 10] += 100
        images.append(pixels.to(torch.uint8))
        labels.append(label)
        names.append(f"{name}/{i:03}.png")
        Image.fromarray(images[-1].numpy()).save(folder / "photos" / names[-1])
settings = imagenet_resnet.Settings()  # torchvision's names of tensors: weights saved from its resnet18 fit as well
model = imagenet_resnet.build(settings, 3, (3, 32, 32))
x = imagenet_resnet.prepare(settings, torch.stack(images).permute(0, 3, 1, 2))
y = torch.tensor(labels)
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
for _ in range(5):
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()
torch.save(model.state_dict(), folder / "resnet18.pt")
(folder / "gone.txt").write_text("\n".join(names[::6]))

# What you do.
words = ["unlearn", "resnet18.pt", "--family", "imagenet-resnet", "--forget", "gone.txt", "--retain", "photos"]
words += ["-o", "out", "--set", "workers=1", "--set", "pool.grid={lr: [1e-4, 3e-4, 1e-3], epochs: [4]}"]  # a short pool
print(f"negmerge {' '.join(words)}")
done = subprocess.run([sys.executable, "-m", "negmerge", *words], cwd=folder, capture_output=True, text=True)
print(done.stdout + done.stderr)
sys.exit(done.returncode)
