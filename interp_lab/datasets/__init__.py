"""Data sets: one file a format; each turns records into samples, one measurement each."""
