"""Transports from one frame to a later one: one file a method."""
