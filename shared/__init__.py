"""Values, ports and their adapters that both sides need. Knows neither the API nor the worker."""
