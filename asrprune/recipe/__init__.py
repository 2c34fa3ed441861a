"""The stages of a recipe: which of them are done, and running the others."""
