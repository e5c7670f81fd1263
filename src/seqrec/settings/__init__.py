"""Settings classes and YAML files."""
