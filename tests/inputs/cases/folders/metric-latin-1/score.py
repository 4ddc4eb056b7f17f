# für
def score(predictions, draws):
    return 1
