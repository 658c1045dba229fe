"""Watching a model while it works: attention, hidden states and gates, reduced on the device."""
