SPACE = None
