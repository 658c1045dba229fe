"""Statistics of numbers over samples, with their intervals; no study's words in it."""
