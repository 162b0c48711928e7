"""The probe of the program's own database: its dialects, what answers leave out, how often it is asked."""
