"""What a sweep found, as one page to read: from its journal and Optuna's file alone, long after its lanes are gone."""
