def overrides():
    return {}
