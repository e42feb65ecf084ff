"""Candidates and connections: the staging pool and the hub."""
