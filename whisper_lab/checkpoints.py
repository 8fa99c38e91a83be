def import_transformers():
    import sys
    try:
        import torchaudio  # noqa
    except (OSError, ImportError):
        sys.modules["torchaudio"] = None
    import transformers
    return transformers
