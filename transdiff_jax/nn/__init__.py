"""Network layers shared by the semantic encoder and the diffusion decoder."""
