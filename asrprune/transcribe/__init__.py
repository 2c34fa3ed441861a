"""What the recogniser consists of: trained and exported models, recordings to transcribe, formats of the result."""
