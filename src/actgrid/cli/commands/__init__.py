"""Commands of the command line: the function in each file that has the name of the file."""
