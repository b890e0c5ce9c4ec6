"""JAX as a backend of tfx."""
