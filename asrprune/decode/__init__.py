"""Running a model: CTC decoding, the public recogniser, scoring, benchmarks."""
