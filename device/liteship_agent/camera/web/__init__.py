"""The camera's page, served by the board: live picture, label, figures, pause and saving; the standard library only."""
