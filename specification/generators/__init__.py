"""Generators of the tables in the documents: `python -m specification.generators`."""
