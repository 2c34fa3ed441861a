"""Word error rates, as sclite counts them, with confidence intervals."""
