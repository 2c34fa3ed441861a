"""Choosing the layers to remove: plans, search, surgery."""
