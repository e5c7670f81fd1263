"""What is known beside the sequences: feature schemas and their encoding for models, and tables of samples
for other trainers."""
