"""Logs kept on disk or in memory, and what is kept of them."""
