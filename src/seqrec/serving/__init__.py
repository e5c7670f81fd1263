"""A model as a folder; raw ids in, items out."""
