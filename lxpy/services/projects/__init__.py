"""Projects and profiles: scopes of names and what they allow."""
