"""All numbers: the schema of the config, and its files."""
