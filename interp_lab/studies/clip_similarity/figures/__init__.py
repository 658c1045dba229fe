"""Figures of clip_similarity, from a result alone."""
