"""The liteship folder of a target: what is in it, and how a release gets into it and out of it again.

The host sends the source text of these modules over stdin and executes it with the target's own Python before any
release exists there; they therefore import the standard library and each other only. The rest of stdin is data.
Answers are event lines on stdout, any number of `progress` and then one `done` or `error`.

A deploy goes: tell what is there, and take the header of what the host sends then; lock, space; receive every blob into
blobs/.partial and verify its sha256; unpack runtimes and link the release together under temporary names; flush the
file system once; give blobs, runtimes and release their names; run the smoke inference; switch `current` with one
rename; remove what no release needs any more. Whatever fails on the way, `current` stays what it was and only .partial
files remain, from which the next deploy goes on.
"""
