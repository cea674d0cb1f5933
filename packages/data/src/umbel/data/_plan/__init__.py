"""What a dataset is: a logical plan, rules that rewrite it, and the stages that it is run as."""
