"""Images told apart by prompts of their classes: CLIP, with a head for each data set."""
