"""One short script a question: it measures the answer on whisper-nano and says which claims hold."""
