"""Which part of a picture or a sound each token of a model is made of, measured on the model."""
