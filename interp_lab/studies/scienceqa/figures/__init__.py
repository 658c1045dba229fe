"""Figures of scienceqa, from a result alone."""
