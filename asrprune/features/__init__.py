"""Audio, filterbanks, CMVN, augmentation: from samples to what the model sees."""
