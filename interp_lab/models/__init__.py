"""Models: one file a family; each turns samples into inputs and says what every token is."""
