"""Exit codes of the command `chainrule`."""

SUCCESS = 0
FAILURE = 1
USAGE_ERROR = 2  # returned by click for an invalid command line
INTERRUPTED = 130  # the shells' code for a process that Ctrl-C ended: 128 + SIGINT
