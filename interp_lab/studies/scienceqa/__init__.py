"""scienceqa: which head of each layer looks hardest at the image, over a data set."""
