"""Model families by name. A new one is a file in this package.

A family's module has `SUMMARY` (one line), `Settings` (pydantic, unknown keys are errors),
`build(settings, classes, shape, seed) -> nn.Module`, `prepare(settings, images)` from uint8 [b, C, H, W] to what
the model takes, and `logits(model, batch) -> [b, classes]`. `prepare` also takes float32 pixels in 0 … 255 and lets
gradients through to them (it may work in place on what it is given): attacks move pixels, not normalised values.
"""
