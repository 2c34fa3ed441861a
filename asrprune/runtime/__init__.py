"""Basic tools for all other packages: errors, files, processes, the machine."""
