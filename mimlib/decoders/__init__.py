"""Decoders: what answers from an encoder's memory."""
