"""Encoders, and the blocks that several models share."""
