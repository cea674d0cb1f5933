"""Streaming datasets on Arrow: read, transform, shuffle, join, and feed to training."""

from __future__ import annotations
