"""A database that is lost is made again from records beside the files."""
