"""What the tests stand on: real servers and processes, a person's clicks, pictures. Fakes are in tests/fakes."""
