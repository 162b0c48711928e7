"""Whether the record is what was appended to it and what people signed: the audit, its export, signing the log."""
