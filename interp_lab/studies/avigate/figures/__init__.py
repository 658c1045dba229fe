"""Figures of avigate, from a result alone."""
