"""Files of guests: through the files API, as trees, by SFTP."""
