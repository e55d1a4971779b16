"""Evaluation: the tables of the paper, validation of weights, the user study and figures."""
