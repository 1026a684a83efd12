"""Does a plugin help, or would anything have: runs with and without it, placebos, a verdict."""
