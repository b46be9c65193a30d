"""Files: feature stores, tables of difficulty, predictions, evaluations."""
