"""Generative modelling by noise: schedules, preconditioning, solvers, denoising."""
