"""Analyses: what to watch for an input, and which numbers to make of it."""
