"""EquiJump, a generative model of protein dynamics; not part of this version."""
