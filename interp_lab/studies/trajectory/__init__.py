"""trajectory: what a model attends to, in text and image, while it writes its answer."""
