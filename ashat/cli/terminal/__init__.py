"""What is shown on a terminal and asked there: tables, marks, progress, prompts, interrupts."""
