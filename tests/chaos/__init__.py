"""The running service, hurt on purpose under load: `make chaos`."""
