"""The search over N/K, widths and lanes: space, study, trials, journal and report."""
