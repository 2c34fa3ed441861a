"""The ground of everything else: errors, files, processes, the machine."""
