"""Named runs of pre-training, one file per paper."""
