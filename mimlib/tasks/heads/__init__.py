"""Heads: what turns features into the answers of a task."""
