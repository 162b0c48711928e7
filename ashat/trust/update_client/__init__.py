"""A Mainframe's TUF client: what it believes of what OMEGA serves."""
