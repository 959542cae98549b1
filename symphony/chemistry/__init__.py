"""Bonds of molecules from their coordinates, perceived by RDKit."""
