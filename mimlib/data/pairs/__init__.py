"""Pairs of images of one scene, for cross-view completion."""
