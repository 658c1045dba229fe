"""QD-DETR with audio-visual fusion: moment retrieval in a video, its network and checkpoints."""
