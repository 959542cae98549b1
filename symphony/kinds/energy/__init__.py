"""An energy model of molecules: energies, forces, curvature."""
