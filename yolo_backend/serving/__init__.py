"""From a request to its answer: whose turn it is, what is worked on, and each result delivered once."""
