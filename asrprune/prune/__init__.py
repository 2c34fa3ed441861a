"""Which layers to remove: plans, search, surgery."""
