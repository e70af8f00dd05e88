"""Pairs of images with flow or disparity."""
