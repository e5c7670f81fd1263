"""Features beside the sequences: what is known of users and items, and tables of samples for trainers that want one row an event."""
