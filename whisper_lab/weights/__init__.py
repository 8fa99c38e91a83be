"""Whisper's weights in every common file format, turned into the Hugging Face folder that the lab opens.

`formats` says what a file is and converts it; one module per format reads (`ctranslate2`, `openai`, `ggml`);
`huggingface` reads and writes the folder. `model` has what they share, `vocabulary` makes tokenizers.
"""
