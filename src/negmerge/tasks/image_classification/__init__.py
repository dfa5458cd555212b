"""Images with one class each, and networks that tell the classes apart."""
