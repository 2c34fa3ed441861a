"""Word error rates, counted as in sclite, with confidence intervals."""
