"""Direct transfer of tensors: whoever made them keeps them, and whoever uses them takes them from there."""
