"""All of Whisper in one graph: sound, features, encoder, the decoding loop and the text, in standard operators."""
