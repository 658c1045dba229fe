"""semdim: what a word's sound makes a model attend to, between two features."""
