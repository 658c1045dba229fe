"""tiny_avigate: `model` defines it; `make` trains and tests it, run as a module."""
