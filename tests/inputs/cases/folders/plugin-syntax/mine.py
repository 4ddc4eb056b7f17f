SPEC = (
