"""One file of scenarios for each area; the file's name is the area's name."""
