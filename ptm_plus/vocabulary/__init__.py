"""Vocabularies: trained on text, measured per language, extended without moving an old id."""
