"""An archive of recordings: ten thousand files to ten thousand transcripts, on one machine or on many, once each."""
