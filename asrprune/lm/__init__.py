"""N-gram language models of words: estimated, read and written (ARPA), and looked up."""
