"""Basic tools of all other rooms: errors, files, processes, the machine."""
