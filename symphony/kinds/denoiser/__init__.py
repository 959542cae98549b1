"""A denoiser of whole molecules at small noise, which refines what was sampled."""
