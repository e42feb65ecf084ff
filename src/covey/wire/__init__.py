"""Every protocol as a plain object: bytes in, events and bytes out. No socket, clock or task."""
