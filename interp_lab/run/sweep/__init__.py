"""Jobs of one command: what each is, which samples it measures, what became of it."""
