"""A whole project predicted, without the page and its time limit."""
