"""Stand-ins for what can't be made to block, die or misbehave on demand, or isn't in a package registry."""
