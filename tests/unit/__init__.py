"""Unit tests: settings, rendering, pure logic. No host needed."""
