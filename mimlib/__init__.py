"""mimlib: six methods of self-supervised vision, from a laptop lesson to full-scale training."""

__version__ = "0.1.0"
