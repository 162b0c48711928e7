"""Keep a program's own records in one file, and put them back: what a backup holds, and how it is read."""
