"""Domain corpora: recipes, and what makes a cleaned and measured corpus of one.

``recipe`` holds the schema, ``finding`` looks recipes up, ``stages`` says what is done in which
order, ``build`` does it, ``account`` and its pages say what came of it. Reading a recipe needs the
core alone; building needs what the extra ``recipes`` installs (datatrove, ftfy).
"""
