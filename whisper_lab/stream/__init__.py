"""What 09-stream-microphone.py stands on: sources of sound, features as it comes, voice activity, the terminal."""
