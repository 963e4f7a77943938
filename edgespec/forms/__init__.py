"""The forms a drafter can take (rows of its head, types of its body): weigh, make, find, follow."""
