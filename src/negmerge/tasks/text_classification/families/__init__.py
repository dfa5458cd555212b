"""Families of text classifiers by name. A new one is a file here, see `..family`."""
