"""The server itself: its config, certificates, clients, figures."""
