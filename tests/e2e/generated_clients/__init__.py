"""Flows with generated clients, compiled and run by `tests/e2e/test_generated_clients.py`."""
