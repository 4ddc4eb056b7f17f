def scores(predictions, draws):
    return 1
