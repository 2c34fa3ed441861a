"""The stages of a recipe: find out which are done, and run the others."""
