"""What 04 compares: files, graphs, numbers, texts, speed; and how it is shown."""
