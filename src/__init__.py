"""The course text's names for script 07's model, so that its program runs here; the code is whisper_lab.speech_llm."""
