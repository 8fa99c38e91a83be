"""Speech with a known text: the small language that whisper-nano knows, and free synthesizers to speak it."""
