"""The formats of files of labels that people have: a file each, and `table.py` that tells them apart."""
