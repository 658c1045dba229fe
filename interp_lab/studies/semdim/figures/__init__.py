"""Figures of semdim, from a result alone."""
