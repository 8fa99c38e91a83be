"""What several tests need: small models, fakes, processes, a browser. No test is in here."""
