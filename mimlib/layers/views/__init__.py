"""Views that a method draws itself, on the device: crops, colors, many crops."""
