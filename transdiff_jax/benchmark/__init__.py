"""How fast, how large: sampling, training and its input measured; programs for other machines compiled."""
