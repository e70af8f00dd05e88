"""Scores of predictions against the truth, equal to each benchmark's official tool."""
