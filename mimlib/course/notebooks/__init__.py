"""Notebooks as files: rendered, kept offline, held to their proofs."""
