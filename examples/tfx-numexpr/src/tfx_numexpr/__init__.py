"""A kernel of numexpr for the NumPy backend of tfx."""
