"""Images with a value at every pixel: depth, label maps."""
