SPEC = SPACE = None
