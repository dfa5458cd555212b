"""Model families by name. A new one is a file in this package.

A family's module has `SUMMARY` (one line), `Settings` (pydantic, unknown keys are errors),
`build(settings, classes, shape, seed) -> nn.Module`, `prepare(settings, images)` from uint8 [b, C, H, W] to what
the model takes, and `logits(model, batch) -> [b, classes]`. `prepare` also takes float32 pixels in 0 … 255 and lets
gradients through to them (it may work in place on what it is given): attacks move pixels, not normalised values.

A family may have weights of its own, `pretrained(settings) -> state dict` (base: {pretrained: true}), may want images
in a form of its own, `image_form(settings) -> decoding settings`, and may classify by prompts: then
`prepare_head(settings, prompts) -> paths` makes a head for each source, and `build` takes the files as `head`;
`check_prompts(settings, sources)` may refuse sources before anything is decoded.
`model_files(settings) -> {name: path}` are the files that all this is read from: they are hashed when a run begins,
stand in its record, and must be the same where it is resumed; `pinned(settings) -> settings` names these very files to
other processes.
"""
