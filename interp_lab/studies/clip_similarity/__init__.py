"""clip_similarity: how alike a vision tower's patch tokens are to their neighbours and to CLS."""
