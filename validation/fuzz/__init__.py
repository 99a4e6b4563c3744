"""Damaged and hostile input by the thousand, through the command line, in processes of limited time, memory and files."""
