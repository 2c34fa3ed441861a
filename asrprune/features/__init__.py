"""Audio, filterbanks, CMVN and augmentation: from samples to the input of the model."""
