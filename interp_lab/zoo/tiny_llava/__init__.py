"""tiny_llava: `model` defines it; `make` trains and tests it, run as a module."""
