"""A backend asked over HTTP, and a first project that is connected to it."""
