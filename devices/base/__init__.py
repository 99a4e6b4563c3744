"""What all packages stand on: user errors, the jit wrapper, quantities, strict TOML, random streams."""
