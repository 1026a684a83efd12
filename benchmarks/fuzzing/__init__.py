"""Inputs that no reader expects, and what a reader may do with them.

``cases.py`` runs one input through one reader, ``mutations.py`` spoils documents, ``counting.py``
counts rows without the readers' code, and ``rows.py``, ``folders.py`` and ``texts.py`` list the
readers. A new reader is one more ``Reader`` in the list of one of those modules.
"""
