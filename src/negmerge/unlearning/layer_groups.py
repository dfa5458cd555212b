"""Which tensors of a model stand together, found from their names and shapes alone: stem, blocks, head, norms."""

from collections.abc import Mapping, Sequence

NORMS, STEM, HEAD = "norms", "stem", "head"


def layer_groups(shapes: Mapping[str, Sequence[int]], most: int = 4) -> dict[str, list[str]]:
    """Return the names of tensors by group, in the order of the model; each name is in one group.

    A module (what stands before the last dot of a name) whose tensors all have at most one dimension is a
    normalisation: group "norms". The first part of a module's path that ends in a digit, and is not the module itself,
    numbers a block ("layer1.0.conv1" → "layer1", "model.layers.11.mlp.up" → "model.layers.11"); where no module lies in
    a block, each one is a block, but for the first, the stem, and the last, the head. What comes before all blocks is
    the stem, what comes after them the head, what comes between them belongs to the block before. More than `most`
    blocks are joined to so many runs of neighbours, nearly equal in number ("FIRST … LAST").

    >>> layer_groups({"conv1.weight": [8, 3, 3, 3], "bn1.weight": [8], "layer1.0.conv1.weight": [8, 8, 3, 3],
    ...               "layer2.0.conv1.weight": [8, 8, 3, 3], "linear.weight": [10, 8], "linear.bias": [10]})
    {'stem': ['conv1.weight'], 'layer1': ['layer1.0.conv1.weight'], 'layer2': ['layer2.0.conv1.weight'], \
'head': ['linear.weight', 'linear.bias'], 'norms': ['bn1.weight']}
    """
    modules: dict[str, list[str]] = {}
    for name in shapes:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    norms = {module for module, names in modules.items() if all(len(shapes[name]) <= 1 for name in names)}
    matrices = [module for module in modules if module not in norms]
    groups: dict[str, list[str]] = {}
    for module, group in _grouped(matrices, most).items():
        groups.setdefault(group, []).extend(modules[module])
    own = [name for module in modules if module in norms for name in modules[module]]
    return {**groups, **({NORMS: own} if own else {})}


def _grouped(modules: Sequence[str], most: int) -> dict[str, str]:
    """Return the group of each module."""
    blocks = {module: _block(module) for module in modules}
    if not any(blocks.values()):
        blocks = {module: "" if module in (modules[0], modules[-1]) else module for module in modules}
    named = _joined(list(dict.fromkeys(block for block in blocks.values() if block)), most)
    last = max((i for i, module in enumerate(modules) if blocks[module]), default=0)
    found, current = {}, STEM
    for i, module in enumerate(modules):
        current = named.get(blocks[module], HEAD if i > last else current)
        found[module] = current
    return found


def _block(module: str) -> str:
    parts = module.split(".")
    for i, part in enumerate(parts[:-1]):
        if part[-1:].isdigit():
            return ".".join(parts[: i + 1])
    return ""


def _joined(blocks: Sequence[str], most: int) -> dict[str, str]:
    """Return the name of the run of neighbours that each block belongs to."""
    count = min(most, len(blocks))
    found: dict[str, str] = {}
    for run in range(count):
        own = blocks[run * len(blocks) // count : (run + 1) * len(blocks) // count]
        found |= dict.fromkeys(own, own[0] if len(own) == 1 else f"{own[0]} … {own[-1]}")
    return found
