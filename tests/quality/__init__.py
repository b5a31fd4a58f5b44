"""How good search is: a small corpus, questions with known answers, and what is found of them."""
