"""The configuration: its typed schema, and the nodes that are made from it."""
