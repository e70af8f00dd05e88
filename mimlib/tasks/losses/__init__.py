"""Losses of tasks that are more than one line of torch."""
