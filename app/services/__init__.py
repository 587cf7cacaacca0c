"""The two use cases that every front door calls: recognition and synthesis."""
