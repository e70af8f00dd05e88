"""Sets of views, pairs, stereo pairs and clips, made by workers and kept on disk."""
