"""The summarizer."""
