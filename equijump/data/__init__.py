"""Trajectories as tensor clouds, and pairs of their frames."""
