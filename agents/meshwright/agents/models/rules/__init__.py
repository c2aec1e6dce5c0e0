"""What the offline model goes by: each rule looks at a situation and decides on a move, or leaves it to the next."""
