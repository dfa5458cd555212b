"""Model families that classify by prompts; a new one is a file in this package."""
