"""Real servers and real files for the tests of edgespec.models: nothing here is a mock."""
