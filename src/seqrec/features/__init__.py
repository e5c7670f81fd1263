"""What models and samples know beside the ids: which columns are read, and the features made of histories."""
