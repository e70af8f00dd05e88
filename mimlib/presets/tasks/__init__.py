"""Named runs of downstream tasks."""
