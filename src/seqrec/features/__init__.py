"""What is known besides the sequences: feature schemas, and their encoding for models."""
