"""Network layers that the semantic encoder and the diffusion decoder share."""
