"""Running trained models: many sub-models in one pass."""
