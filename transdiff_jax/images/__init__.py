"""Image files and pixels: decoding, encoding, and drawing grids."""
