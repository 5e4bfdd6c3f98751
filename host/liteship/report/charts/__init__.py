"""The charts of a report, one module each: a Vega-Lite specification, the same figures as a table, and what it shows in
words. The page draws them in the browser, `chart.write_png` without one.

Altair takes half a second to import and is imported only where a chart is made.
"""
