"""The types: a log, its columns, its catalogues, and flat sequences."""
