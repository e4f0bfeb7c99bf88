"""From measurements to the accuracy report: predict, score, tabulate, draw."""
