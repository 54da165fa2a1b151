#!/bin/sh
# Exit code 0 when all workers of this container have their models loaded and reached Redis in the last 15 s:
# each touches a file with every heartbeat (worker/beat_file.py). Run every few seconds, so it starts no Python.
beats=${ANANSE_STATE_DIR:-/tmp/ananse}/workers
[ -n "$(find "$beats" -name '*.beat' -print -quit 2>/dev/null)" ] &&
  [ -z "$(find "$beats" -name '*.beat' ! -newermt '-15 seconds' -print -quit)" ]
