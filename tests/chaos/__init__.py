"""Fault injection into the running service under load: `make chaos`."""
