"""The formats in which packages are declared, locked and installed, a module for each family of tools."""
