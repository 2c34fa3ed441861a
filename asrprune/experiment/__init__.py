"""The experiment directory: everything about one model, so that no later command needs an architecture flag."""
