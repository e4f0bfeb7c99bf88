"""Our own measurements, the matrix of jobs and the script that makes them."""
