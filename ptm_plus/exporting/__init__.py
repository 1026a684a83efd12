"""What a trained run gives away: a plain transformers folder, and proof that it is one."""
