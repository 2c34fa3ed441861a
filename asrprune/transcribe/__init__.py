"""The parts of the recogniser: trained and exported models, recordings to transcribe, formats of the result."""
