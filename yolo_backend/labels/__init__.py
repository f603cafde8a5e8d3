"""The labeling config: its controls and labels, how it is served, and what was found as regions. Pure functions."""
