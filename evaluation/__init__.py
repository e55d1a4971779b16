"""Scores of pairs of clips, the tables of the paper, the user study and the pictures to look at."""
