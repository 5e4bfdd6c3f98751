"""The agent or the camera as a service of the user's own systemd: install, look at, remove; no root, no sudo.

The host sends the source text of these modules over stdin, as it does that of the store, and runs them with the
target's own Python. The unit file lies under units/ of the liteship folder; `systemctl --user enable` links it, which
makes the only two entries outside that folder. The unit starts the agent through `current`, so that a restart takes
the release that is active then.

An install goes: ask the active release's agent for the verb, let the user's services run without a login (lingering)
and verify it, wait for the user's systemd, write the unit, enable and start it, and look whether it stays up.
Whatever fails on the way, nothing is reported as installed.
"""
