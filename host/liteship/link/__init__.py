"""The parts of the link to a target; `liteship.remote` puts them together. Only they import paramiko."""
