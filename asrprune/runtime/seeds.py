"""Seeds that are computed from numbers such as the training step."""


def mix(*numbers: int) -> int:
    """Return one 63-bit seed for several numbers. Neighbouring steps get unrelated seeds."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # the finaliser of splitmix64 (Steele et al. 2014)
        state = (state + number * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 1
