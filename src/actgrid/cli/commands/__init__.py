"""The commands, a file each: the function of the file's name is found and needs no entry."""
