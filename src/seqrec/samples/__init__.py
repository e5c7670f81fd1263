"""Tables of samples for other trainers: a row an event, with its features and negatives."""
