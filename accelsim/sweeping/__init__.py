"""Many designs, one question: which points there are, what each of them answers, and where the answers are kept."""
