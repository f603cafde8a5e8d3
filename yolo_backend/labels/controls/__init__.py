"""The kinds of controls that we serve: one file a tag. `kind.py` says what a kind is, `table.py` lists them."""
