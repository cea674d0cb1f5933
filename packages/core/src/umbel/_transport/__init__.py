"""Sockets: readiness polling and framed connections."""
