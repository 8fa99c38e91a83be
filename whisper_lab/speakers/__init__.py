"""Who spoke when: what 10-who-spoke.py stands on. Two models beside Whisper, clustering, words, a page."""
