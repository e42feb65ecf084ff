"""Signed logs as pure data: tree, proofs, signatures, messages. No sockets, clocks or files."""
