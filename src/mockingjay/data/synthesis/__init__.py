"""Speech from espeak-ng, with phone times; imports no torch, so that its processes start at once."""
