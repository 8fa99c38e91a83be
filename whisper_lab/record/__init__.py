"""The plumbing of 01-record-audio-app.py: page, server, microphone, saving."""
