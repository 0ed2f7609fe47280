"""What a step costs: ours beside other ways, on the same tensors in one process."""
