"""The user's table: files, targets, rows, folds."""
