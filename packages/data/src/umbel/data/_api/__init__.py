"""What users call on a dataset, by kind: what adds an operator, what looks at rows, what writes them."""
