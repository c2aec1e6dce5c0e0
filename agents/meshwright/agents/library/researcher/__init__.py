"""The researcher: answers from the documents of a folder, with their sources."""
