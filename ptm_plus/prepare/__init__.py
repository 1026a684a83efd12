"""From characters to sequences on disk: tokenise, annotate, rewrite, lay out; cached as a graph."""
