"""Where images come from: each source is a finite, ordered collection of labelled records."""
