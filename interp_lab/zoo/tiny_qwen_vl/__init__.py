"""tiny_qwen_vl: `model` defines it; `make` trains and tests it, run as a module."""
