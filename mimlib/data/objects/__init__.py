"""Images with boxes and masks of objects."""
