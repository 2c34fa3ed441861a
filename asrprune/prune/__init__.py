"""Choosing the layers to remove (strategies, search, plans), and removing them from the weights."""
