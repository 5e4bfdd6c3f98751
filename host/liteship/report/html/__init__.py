"""The page of a report: one file that needs nothing else, to look at and to send to somebody.

`page` puts together what `table`, `photographs`, `lineage` and the charts give; template, style and script stand
beside them.
"""
