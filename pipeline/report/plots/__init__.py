"""Pictures of signals, features and filters, on true axes."""
