"""Figures of trajectory, from a result alone."""
