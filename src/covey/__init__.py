"""Peer-to-peer connections for Python."""
