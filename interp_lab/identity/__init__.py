"""What a run is: its settings, the content of its weights and samples, names that stay."""
