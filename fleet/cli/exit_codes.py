"""What `fleet` commands end with, besides 0: a script tells by it what to do next."""

EXIT_FAILURE = 1
EXIT_USAGE = 2
#: Tasks wait for what does not pass by itself (a key, a setting, a worker); the same command goes on with them.
EXIT_WAITS = 3
#: A worker is not well: what restarts workers goes by this alone, not by a probe that could not ask.
EXIT_UNWELL = 4
#: What a shell reports for a process that SIGINT ended: 128 + 2.
EXIT_INTERRUPTED = 130
