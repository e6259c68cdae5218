"""Between images and the latents that the model works on."""
