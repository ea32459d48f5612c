"""Records that are taken in: of other catalogs, of folders, of the original's database."""
